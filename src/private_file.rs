//! A file that is there as a whole or not at all, and that only its owner may read: written beside its
//! place, brought to disk, and put there in one step.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file on its way to its place. Gone with this if it never gets there.
pub struct Draft {
    place: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// An empty file beside `place`.
    pub fn beside(place: &Path) -> io::Result<(Self, File)> {
        let number = getrandom::u32().map_err(io::Error::other)?;
        let mut name = place.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        name.push(format!(".part-{number:08x}"));
        let path = place.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((Self { place: place.to_owned(), path }, file))
    }

    /// Where it is for the time being.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place. What is there already stays, and is an error, unless it may be
    /// replaced.
    pub fn put(self, replace: bool) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        let linked = if replace { None } else { Some(std::fs::hard_link(&self.path, &self.place)) };
        match linked {
            Some(Ok(())) => {}
            Some(Err(error)) if self.place.exists() => return Err(error),
            // Not every file system has links.
            Some(Err(_)) | None => std::fs::rename(&self.path, &self.place)?,
        }
        let folder = self.place.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It has moved, or nobody needs it.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_there_is_replaced_only_when_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        let put = |text: &str, replace| {
            let (draft, mut file) = Draft::beside(&place).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            draft.put(replace)
        };
        put("one", false).unwrap();
        assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(put("two", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "one");
        put("three", true).unwrap();
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "three");
        drop(Draft::beside(&place).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
