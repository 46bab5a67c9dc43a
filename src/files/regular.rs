//! Reading a file that ought to be a file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Reads a regular file of at most `bytes_max` bytes. Pipes, sockets and devices are refused, for they may never end.
///
/// # Errors
/// The file cannot be opened or read, is no file, or is larger; the text says which.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Before it is opened, for opening alone has effects on some devices; and again behind, for it may be another by then.
    check(&std::fs::metadata(path)?)?;
    // Opening a pipe would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    check(&file.metadata()?)?;
    read(file, bytes_max)
}

fn read(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("is {what}, not a file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_within_the_cap_are_read() {
        let folder = std::env::temp_dir().join(format!("fairlead-files-{}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read_regular(&file, 4).unwrap(), b"text");
        assert_eq!(read_regular(&file, 3).unwrap_err().to_string(), "has more than 3 bytes");
        assert_eq!(read_regular(&folder, 9).unwrap_err().to_string(), "is a folder, not a file");
        assert_eq!(read_regular("/dev/zero".as_ref(), 9).unwrap_err().to_string(), "is a device, not a file");
        let pipe = folder.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read_regular(&pipe, 9).unwrap_err().to_string(), "is a pipe, not a file");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
