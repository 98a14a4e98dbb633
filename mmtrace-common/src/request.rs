//! Requests that are submitted by one call and complete later: of aio and of io_uring.

use crate::RowKey;

/// A request in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RequestKey {
    /// aio: the `kioctx`. io_uring: the `io_kiocb`, or the `io_ring_ctx` where completions do not
    /// tell of which request they are (5.15).
    pub owner: u64,
    /// aio: the program's `iocb`. io_uring: 0, or the request's `user_data` with the `io_ring_ctx`.
    pub id: u64,
}

/// What is known of a request: an entry of the `REQUESTS` map.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Request {
    /// To which row it belongs.
    pub row: RowKey,
    /// Bytes asked for.
    pub size_bytes: u64,
    /// Where in the file; `u64::MAX`: at its position, or not known.
    pub offset: u64,
    /// The `struct file`, or 0.
    pub file_pointer: u64,
    /// When it was submitted.
    pub submitted_ns: u64,
    /// The window of watching that it was submitted in: see the map `WATCHED`.
    pub window: u64,
    /// How many requests go by this key.
    pub count: u32,
    /// 1: they belong to several rows.
    pub mixed: u16,
    /// How wide the parts of its file are in a heat map, as a shift of bytes; 0: it has none.
    pub heat_shift: u16,
    /// 1: of aio; 0: of io_uring.
    pub aio: u32,
    /// 1: its buffer is registered with the ring: see [`Call::registered`](crate::thread::Call).
    pub registered: u32,
}

const _: () = assert!(size_of::<RequestKey>() == 16 && align_of::<RequestKey>() == 8);
const _: () = assert!(size_of::<Request>() == 88 && align_of::<Request>() == 8);
