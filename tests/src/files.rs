//! Files for the workloads: made, put out of the page cache, and looked at.

use std::{
    fs,
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
    ptr,
};

use anyhow::{Context as _, bail, ensure};
use memmap2::Mmap;

/// Makes a file of `size_bytes` bytes that no file system can compress or leave out, and writes it
/// to the disk.
pub(crate) fn make_random(path: &Path, size_bytes: u64) -> anyhow::Result<()> {
    // xorshift64: the same bytes every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    write_synced(path, size_bytes, |chunk| {
        for word in chunk.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
    })
}

/// Makes a text file of `size_bytes` bytes, in lines.
pub(crate) fn make_text(path: &Path, size_bytes: u64) -> anyhow::Result<()> {
    let mut line = 0_u64;
    write_synced(path, size_bytes, |chunk| {
        for part in chunk.chunks_mut(64) {
            let text = format!("{line:>20} the needle is in line {line:<20}");
            let text = &text.as_bytes()[..part.len().min(63)];
            part.fill(b'\n');
            part[..text.len()].copy_from_slice(text);
            line += 1;
        }
    })
}

fn write_synced(
    path: &Path,
    size_bytes: u64,
    mut fill: impl FnMut(&mut [u8]),
) -> anyhow::Result<()> {
    let mut file = fs::File::create(path).with_context(|| format!("creating {path:?}"))?;
    let mut chunk = vec![0; 1 << 20];
    let mut left = size_bytes;
    while left > 0 {
        let now = left.min(chunk.len() as u64);
        let part = &mut chunk[..usize::try_from(now)?];
        fill(part);
        file.write_all(part)?;
        left -= now;
    }
    file.sync_all()?;
    Ok(())
}

/// Puts all of a file's data out of the page cache.
///
/// # Errors
/// When some of it stays: the file system keeps its data in memory, or it is in use.
pub(crate) fn make_cold(path: &Path) -> anyhow::Result<()> {
    const TRIES: usize = 20;
    let file = fs::File::open(path).with_context(|| format!("opening {path:?}"))?;
    file.sync_all()?;
    for _ in 0..TRIES {
        // SAFETY: no memory is passed.
        let error =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        ensure!(error == 0, std::io::Error::from_raw_os_error(error));
        if cached_bytes(path)? == 0 {
            return Ok(());
        }
    }
    bail!(
        "{} bytes of a file stay in the page cache",
        cached_bytes(path)?
    )
}

/// Brings all of a file's data into the page cache, and keeps it there for as long as the result
/// lives: a machine may take pages back that nobody has used for a while.
pub(crate) fn keep_warm(path: &Path) -> anyhow::Result<Mmap> {
    let file = fs::File::open(path)?;
    // SAFETY: nothing looks at the data, which may change.
    let mapping = unsafe { Mmap::map(&file)? };
    mapping
        .lock()
        .with_context(|| format!("keeping {path:?} in memory"))?;
    ensure!(
        cached_bytes(path)? >= mapping.len() as u64,
        "{path:?} does not stay in the page cache"
    );
    Ok(mapping)
}

/// How many bytes of a file are in the page cache, in whole pages, by `mincore`.
pub(crate) fn cached_bytes(path: &Path) -> anyhow::Result<u64> {
    let file = fs::File::open(path)?;
    let size = usize::try_from(size_bytes(&file)?)?;
    if size == 0 {
        return Ok(0);
    }
    let page = page_size();
    let mut pages = vec![0_u8; size.div_ceil(usize::try_from(page)?)];
    // SAFETY: the kernel chooses the address, the vector has a byte for each page of the mapping,
    // and the mapping is removed again without having been touched.
    unsafe {
        let address = libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        ensure!(address != libc::MAP_FAILED, std::io::Error::last_os_error());
        let looked = libc::mincore(address, size, pages.as_mut_ptr());
        let error = std::io::Error::last_os_error();
        libc::munmap(address, size);
        ensure!(looked == 0, error);
    }
    Ok(pages.iter().filter(|page| **page & 1 != 0).count() as u64 * page)
}

/// Bytes in a file, or on a block device.
pub(crate) fn size_bytes(file: &fs::File) -> anyhow::Result<u64> {
    use std::{io::Seek as _, os::unix::fs::FileTypeExt as _};
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() {
        let mut file = file;
        return Ok(file.seek(std::io::SeekFrom::End(0))?);
    }
    Ok(metadata.size())
}

/// Bytes of a page here.
pub(crate) fn page_size() -> u64 {
    // SAFETY: it only returns a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).expect("a page has a size")
}

/// Bytes of a block of the file system that holds `path`.
pub(crate) fn block_size(path: &Path) -> anyhow::Result<u64> {
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
    // SAFETY: plain data, for which zeros are a value; the call fills it. The name is a C string.
    let status = unsafe {
        let mut status: libc::statvfs = std::mem::zeroed();
        ensure!(
            libc::statvfs(name.as_ptr(), &mut status) == 0,
            std::io::Error::last_os_error()
        );
        status
    };
    Ok(status.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cached_is_seen() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("data");
        make_random(&file, 65_003)?;
        let _kept = keep_warm(&file)?;
        assert_eq!(
            cached_bytes(&file)?,
            65_003_u64.next_multiple_of(page_size())
        );
        assert_eq!(fs::metadata(&file)?.len(), 65_003);
        Ok(())
    }

    #[test]
    fn text_has_its_size_and_lines() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("text");
        make_text(&file, 10_007)?;
        let text = fs::read_to_string(&file)?;
        assert_eq!(text.len(), 10_007);
        assert_eq!(text.lines().count(), 10_007_usize.div_ceil(64));
        Ok(())
    }
}
