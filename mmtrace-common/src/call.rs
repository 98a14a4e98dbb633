//! How the kernel programs read a system call's arguments.

/// In a [`CallSpec`]: the call has no such argument.
pub const NO_ARGUMENT: u8 = 0xff;

/// The size is that of an array of `struct iovec`: [`CallSpec::size_argument`] is its length, and
/// the argument before it its address.
pub const FLAG_IOVEC: u16 = 1;
/// A file descriptor may name another file after the call.
pub const FLAG_CHANGES_FDS: u16 = 2;
/// An address may belong to another mapping after the call.
pub const FLAG_CHANGES_MAPPINGS: u16 = 4;
/// The call counts only if it is `fadvise` or `madvise` with an advice that brings data in.
pub const FLAG_ADVICE: u16 = 8;
/// The call is `mmap`: what it returns is an address.
pub const FLAG_MAPS: u16 = 16;
/// The path is the one given, whatever the file is (else a pipe makes it `ipc`, a terminal `other`,
/// `O_DIRECT` `direct`).
pub const FLAG_FIXED_PATH: u16 = 32;
/// What the call returns is a number of bytes.
pub const FLAG_RETURNS_BYTES: u16 = 64;
/// An operation of its path: calls without it only set where faults and disk reads belong.
pub const FLAG_COUNTED: u16 = 128;

/// The file is what is mapped at the first argument, as long as the second says.
pub const FLAG_ADDRESS: u16 = 256;

/// The offset argument is the address of the offset, or null for the file's position.
pub const FLAG_OFFSET_POINTER: u16 = 512;

/// In a [`CallSpec`]: its arguments and what it returns say all.
pub const PLAIN: u8 = 0;
/// The size lies behind the `struct msghdr` that the second argument is the address of.
pub const MESSAGE: u8 = 1;
/// As [`MESSAGE`], of an array of `struct mmsghdr`, as long as the third argument says; the call
/// returns a number of messages.
pub const MESSAGES: u8 = 2;
/// The call moves all or nothing, and returns 0 when it did.
pub const WHOLE: u8 = 3;
/// `io_submit`: the requests lie behind its arguments.
pub const AIO_SUBMIT: u8 = 4;
/// `io_getevents` and its kind: what becomes of requests lies behind its arguments.
pub const AIO_REAP: u8 = 5;

/// What a system call is, by its number: an entry of the `CALLS` map. Zero: of no interest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CallSpec {
    /// The [path](crate::Path)'s number, plus one; 0: of no interest.
    pub path: u8,
    /// Which argument is the file descriptor, or [`NO_ARGUMENT`].
    pub fd_argument: u8,
    /// Which argument is the number of bytes asked for, or [`NO_ARGUMENT`].
    pub size_argument: u8,
    /// Which argument is the file offset, or [`NO_ARGUMENT`]: the file's position.
    pub offset_argument: u8,
    /// Which argument is the advice, for `FLAG_ADVICE`.
    pub advice_argument: u8,
    /// What has to be read beyond its arguments: [`PLAIN`] and the constants after it.
    pub special: u8,
    /// The `FLAG_` constants.
    pub flags: u16,
}

const _: () = assert!(size_of::<CallSpec>() == 8 && align_of::<CallSpec>() == 2);
