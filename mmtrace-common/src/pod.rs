//! What user space may read from a map as plain bytes.

use crate::{
    Ahead, AheadKey, CallSpec, FileKey, HeatKey, HeatWork, Kernel, Request, RequestKey, RowKey,
    SampleKey, StretchKey, Thread, TimeSamples, Truth, WatchedCalls,
    path::Measures,
    stack::{CodePlace, Frames, StackKey, StackWork},
};

// SAFETY: each is `repr(C)`, made of integers only, with no padding that is not a field, so that
// any bytes of its size are a value of it.
unsafe impl aya::Pod for CallSpec {}
// SAFETY: as above.
unsafe impl aya::Pod for Ahead {}
// SAFETY: as above.
unsafe impl aya::Pod for AheadKey {}
// SAFETY: as above.
unsafe impl aya::Pod for FileKey {}
// SAFETY: as above.
unsafe impl aya::Pod for HeatKey {}
// SAFETY: as above.
unsafe impl aya::Pod for HeatWork {}
// SAFETY: as above.
unsafe impl aya::Pod for RowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Request {}
// SAFETY: as above.
unsafe impl aya::Pod for SampleKey {}
// SAFETY: as above.
unsafe impl aya::Pod for StretchKey {}
// SAFETY: as above.
unsafe impl aya::Pod for RequestKey {}
// SAFETY: as above.
unsafe impl aya::Pod for CodePlace {}
// SAFETY: as above.
unsafe impl aya::Pod for Frames {}
// SAFETY: as above.
unsafe impl aya::Pod for StackKey {}
// SAFETY: as above.
unsafe impl aya::Pod for StackWork {}
// SAFETY: as above.
unsafe impl aya::Pod for Truth {}
// SAFETY: as above.
unsafe impl aya::Pod for Thread {}
// SAFETY: as above.
unsafe impl aya::Pod for Measures {}
// SAFETY: as above.
unsafe impl aya::Pod for TimeSamples {}
// SAFETY: as above.
unsafe impl aya::Pod for WatchedCalls {}
// SAFETY: as above.
unsafe impl aya::Pod for Kernel {}
