//! Objects as plain files: `<directory>/<bucket>/<key>`.
//!
//! Keys that cannot be file names (`a//b`, `..`, `a` beside `a/b`, very long ones) lie under
//! `<directory>/.local-s3/odd/<bucket>/<SHA-256 of the key>`. What a file system does not keep (ETag, headers,
//! checksum) lies in `<directory>/.local-s3/meta/<bucket>/<SHA-256 of the key>.json`. A file without such a
//! companion, put there by hand, is an object whose ETag is made of its size and time.
use super::content::{Content, mix};
use super::object::{Attributes, Object};
use super::versions::Objects;
use crate::checksum::{Algorithm, Checksum, Kind, hex};
use crate::date::Timestamp;
use ring::digest;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const HIDDEN: &str = ".local-s3";
/// Leaves room below the 255 bytes of common file systems.
const MAX_NAME_BYTES: usize = 240;

pub struct Directory {
    root: PathBuf,
    next_temporary: AtomicU64,
}

/// The companion of a file.
#[derive(Serialize, Deserialize)]
struct Meta {
    key: String,
    size: u64,
    mtime_ns: i128,
    etag: String,
    headers: Vec<(String, String)>,
    storage_class: Option<String>,
    tags: Option<String>,
    #[serde(default)]
    archive_tier: Option<String>,
    checksum: Option<(String, String, bool)>,
    parts: Vec<u64>,
}

fn mtime_ns(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

impl Directory {
    pub fn open(root: &Path) -> io::Result<Self> {
        let hidden = root.join(HIDDEN);
        fs::create_dir_all(hidden.join("tmp"))?;
        // What an earlier server left when it was killed.
        for entry in fs::read_dir(hidden.join("tmp"))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self { root: root.canonicalize()?, next_temporary: AtomicU64::new(0) })
    }

    pub fn buckets(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            if let (Ok(name), true) = (name, entry.path().is_dir())
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Makes the folders of a bucket and reads what is there.
    pub fn open_bucket(&self, bucket: &str) -> io::Result<Objects> {
        let root = self.root.join(bucket);
        fs::create_dir_all(&root)?;
        for kind in ["odd", "meta"] {
            fs::create_dir_all(self.hidden(kind, bucket))?;
        }
        let mut objects = Objects::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let key = path.strip_prefix(&root).ok().and_then(Path::to_str).map(str::to_owned);
                if let Some((key, object)) = key.and_then(|key| Some((key.clone(), self.load(bucket, &key, &path)?))) {
                    objects.insert(key.into_bytes(), Some(Arc::new(object)));
                }
            }
        }
        for entry in fs::read_dir(self.hidden("odd", bucket))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let meta = self.hidden("meta", bucket).join(format!("{name}.json"));
            let meta = fs::read(meta).ok().and_then(|text| serde_json::from_slice::<Meta>(&text).ok());
            if let Some(meta) = meta
                && let Some(object) = self.load(bucket, &meta.key, &path)
            {
                objects.insert(meta.key.into_bytes(), Some(Arc::new(object)));
            }
        }
        Ok(objects)
    }

    pub fn remove_bucket(&self, bucket: &str) -> io::Result<()> {
        for kind in ["odd", "meta"] {
            fs::remove_dir_all(self.hidden(kind, bucket))?;
        }
        fs::remove_dir_all(self.root.join(bucket))
    }

    /// A new name for a file in the making, on the file system where it will be published.
    pub fn temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.root.join(HIDDEN).join("tmp").join(format!("{}-{number}", std::process::id()))
    }

    fn hidden(&self, kind: &str, bucket: &str) -> PathBuf {
        self.root.join(HIDDEN).join(kind).join(bucket)
    }

    fn meta_path(&self, bucket: &str, key: &str) -> PathBuf {
        self.hidden("meta", bucket).join(format!("{}.json", name_of(key)))
    }

    /// Where the file of a key belongs, if it can be named after it.
    fn plain_path(&self, bucket: &str, key: &str) -> Option<PathBuf> {
        let usable = |name: &str| {
            !name.is_empty() && name != "." && name != ".." && name.len() <= MAX_NAME_BYTES && !name.contains('\0')
        };
        if !key.split('/').all(usable) {
            return None;
        }
        let root = self.root.join(bucket);
        let path = root.join(key);
        let above = path.ancestors().skip(1).take_while(|folder| **folder != root);
        let free = !path.is_dir() && above.into_iter().all(|folder| !folder.exists() || folder.is_dir());
        free.then_some(path)
    }

    /// Moves a finished file to its place, at once for anybody who looks.
    pub fn publish(&self, bucket: &str, key: &str, object: &mut Object) -> io::Result<()> {
        if matches!(object.content, Content::Discarded) {
            return Ok(()); // a sink's objects are known while the server lives, and leave no file
        }
        let path = self.plain_path(bucket, key).unwrap_or_else(|| self.hidden("odd", bucket).join(name_of(key)));
        let source = match &object.content {
            Content::File(source) => source.clone(),
            content => {
                let source = self.temporary();
                write_content(&source, content, object.size)?;
                source
            }
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let metadata = fs::metadata(&source)?;
        let meta = Meta {
            key: key.to_owned(),
            size: metadata.len(),
            mtime_ns: mtime_ns(&metadata),
            etag: object.etag.clone(),
            headers: object.attributes.headers.clone(),
            storage_class: object.attributes.storage_class.clone(),
            tags: object.attributes.tags.clone(),
            archive_tier: object.attributes.archive_tier.clone(),
            checksum: object
                .checksum
                .as_ref()
                .map(|c| (c.algorithm.name().to_owned(), c.value.clone(), c.kind == Kind::Composite)),
            parts: object.parts.clone(),
        };
        let text = serde_json::to_vec(&meta).map_err(io::Error::other)?;
        let temporary = self.temporary();
        fs::write(&temporary, text)?;
        fs::rename(&temporary, self.meta_path(bucket, key))?;
        fs::rename(&source, &path)?;
        object.content = Content::File(path);
        Ok(())
    }

    pub fn remove(&self, bucket: &str, key: &str, object: &Object) -> io::Result<()> {
        let Content::File(path) = &object.content else { return Ok(()) };
        for path in [path, &self.meta_path(bucket, key)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Folders exist only in key names; the first that is not empty ends the walk.
        let root = self.root.join(bucket);
        for folder in path.ancestors().skip(1).take_while(|folder| **folder != root && folder.starts_with(&root)) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// A file that the bucket's index does not know.
    pub fn discover(&self, bucket: &str, key: &str) -> Option<Object> {
        let path = self.plain_path(bucket, key)?;
        path.is_file().then(|| self.load(bucket, key, &path))?
    }

    fn load(&self, bucket: &str, key: &str, path: &Path) -> Option<Object> {
        let metadata = fs::metadata(path).ok()?;
        let meta = fs::read(self.meta_path(bucket, key)).ok();
        let meta = meta.and_then(|text| serde_json::from_slice::<Meta>(&text).ok());
        let meta = meta.filter(|m| m.size == metadata.len() && m.mtime_ns == mtime_ns(&metadata));
        let modified = metadata.modified().map(Timestamp::from_system).unwrap_or(Timestamp::now());
        let content = Content::File(path.to_owned());
        let size = metadata.len();
        let Some(meta) = meta else {
            let stamp = mix(mtime_ns(&metadata) as u64);
            let etag = hex(&[stamp.to_be_bytes(), mix(stamp ^ size).to_be_bytes()].concat());
            return Some(Object::new(content, size, etag, modified));
        };
        let checksum = meta.checksum.and_then(|(name, value, composite)| {
            let kind = if composite { Kind::Composite } else { Kind::FullObject };
            Some(Checksum { algorithm: Algorithm::of_name(&name)?, value, kind })
        });
        let (storage_class, archive_tier) = (meta.storage_class, meta.archive_tier);
        let attributes = Attributes { headers: meta.headers, storage_class, tags: meta.tags, archive_tier };
        let object = Object::new(content, size, meta.etag, modified);
        Some(Object { attributes, checksum, parts: meta.parts, ..object })
    }
}

fn name_of(key: &str) -> String {
    hex(digest::digest(&digest::SHA256, key.as_bytes()).as_ref())
}

fn write_content(path: &Path, content: &Content, size: u64) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    match content {
        Content::Memory(segments) => {
            for bytes in segments.iter() {
                io::Write::write_all(&mut file, bytes)?;
            }
        }
        Content::Synthetic { seed } => {
            let mut buffer = vec![0; super::content::PIECE_BYTES];
            let mut at = 0;
            while at < size {
                let length = buffer.len().min((size - at) as usize);
                super::content::synthesize(*seed, at, &mut buffer[..length]);
                io::Write::write_all(&mut file, &buffer[..length])?;
                at += length as u64;
            }
        }
        Content::Open(_) | Content::File(_) | Content::Discarded => {
            return Err(io::Error::other("only bytes in memory can be published as a file"));
        }
    }
    Ok(())
}
