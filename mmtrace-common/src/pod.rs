//! What user space may read from a map as plain bytes.

use crate::{
    CallSpec, FileKey, Kernel, Request, RequestKey, RowKey, SampleKey, Thread, Truth, WatchedCalls,
    path::Measures,
};

// SAFETY: each is `repr(C)`, made of integers only, with no padding that is not a field, so that
// any bytes of its size are a value of it.
unsafe impl aya::Pod for CallSpec {}
// SAFETY: as above.
unsafe impl aya::Pod for FileKey {}
// SAFETY: as above.
unsafe impl aya::Pod for RowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Request {}
// SAFETY: as above.
unsafe impl aya::Pod for SampleKey {}
// SAFETY: as above.
unsafe impl aya::Pod for RequestKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Truth {}
// SAFETY: as above.
unsafe impl aya::Pod for Thread {}
// SAFETY: as above.
unsafe impl aya::Pod for Measures {}
// SAFETY: as above.
unsafe impl aya::Pod for WatchedCalls {}
// SAFETY: as above.
unsafe impl aya::Pod for Kernel {}
