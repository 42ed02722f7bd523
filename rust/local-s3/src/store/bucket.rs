//! One bucket: objects in key order, synthetic ones beside them, and uploads in progress.
use super::content::{Content, mix};
use super::directory::Directory;
use super::sequence::Sequence;
use super::upload::Upload;
use super::{lock, read, write};
use crate::checksum::{Checksum, hex};
use crate::config::{BucketConfig, SyntheticConfig};
use crate::date::Timestamp;
use crate::error::{Answer, Failure};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// What a writer sends with an object and a reader gets back.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Returned with GET and HEAD as they were sent.
    pub headers: Vec<(String, String)>,
    /// None is STANDARD.
    pub storage_class: Option<String>,
    /// The `x-amz-tagging` header as sent.
    pub tags: Option<String>,
}

/// One version of an object. Never changes: a write puts another in its place.
#[derive(Clone, Debug)]
pub struct Object {
    pub content: Content,
    pub size: u64,
    /// Without its quotes.
    pub etag: String,
    pub modified: Timestamp,
    pub attributes: Attributes,
    pub checksum: Option<Checksum>,
    /// Sizes of the parts of a multipart upload, otherwise empty.
    pub parts: Vec<u64>,
}

/// None marks a synthetic object that was deleted.
pub type Objects = BTreeMap<Vec<u8>, Option<Arc<Object>>>;

pub struct Bucket {
    pub name: String,
    pub region: String,
    pub created: Timestamp,
    public: AtomicBool,
    sink: AtomicBool,
    requester_pays: AtomicBool,
    pub(super) objects: RwLock<Objects>,
    pub(super) sequences: RwLock<Vec<Arc<Sequence>>>,
    uploads: Mutex<BTreeMap<String, Arc<Upload>>>,
    directory: Option<Arc<Directory>>,
}

impl Bucket {
    pub fn open(config: &BucketConfig, region: &str, directory: Option<Arc<Directory>>) -> io::Result<Self> {
        let objects = match &directory {
            Some(directory) => directory.open_bucket(&config.name)?,
            None => Objects::new(),
        };
        Ok(Self {
            name: config.name.clone(),
            region: config.region.clone().unwrap_or_else(|| region.to_owned()),
            created: Timestamp::now(),
            public: AtomicBool::new(false),
            sink: AtomicBool::new(false),
            requester_pays: AtomicBool::new(false),
            objects: RwLock::new(objects),
            sequences: RwLock::default(),
            uploads: Mutex::default(),
            directory,
        })
    }

    pub fn configure(&self, config: &BucketConfig) -> Result<(), String> {
        self.public.fetch_or(config.public, Ordering::Relaxed);
        self.sink.fetch_or(config.sink, Ordering::Relaxed);
        self.requester_pays.fetch_or(config.requester_pays, Ordering::Relaxed);
        config.synthetic.iter().try_for_each(|synthetic| self.add_synthetic(synthetic))
    }

    pub fn is_public(&self) -> bool {
        self.public.load(Ordering::Relaxed)
    }

    pub fn is_sink(&self) -> bool {
        self.sink.load(Ordering::Relaxed)
    }

    pub fn is_paid_by_requester(&self) -> bool {
        self.requester_pays.load(Ordering::Relaxed)
    }

    pub fn add_synthetic(&self, config: &SyntheticConfig) -> Result<(), String> {
        let Some(sequence) = Sequence::new(config) else {
            return Err(format!(
                "{:?} has none of {{}}, {{uuid}} and {{date}} to make {} keys",
                config.key, config.count
            ));
        };
        if sequence.count > 0 {
            // In the order of their first keys, as listings go through them.
            let mut sequences = write(&self.sequences);
            let place = sequences.partition_point(|other| other.first <= sequence.first);
            sequences.insert(place, Arc::new(sequence));
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        read(&self.objects).values().all(Option::is_none) && read(&self.sequences).is_empty()
    }

    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        if let Some(entry) = read(&self.objects).get(key.as_bytes()) {
            return entry.clone();
        }
        if let Some(found) = read(&self.sequences).iter().find_map(|s| Some((s.clone(), s.find(key)?))) {
            return Some(Arc::new(synthetic(&found.0, found.1)));
        }
        // A file that was put into the folder by hand.
        let object = Arc::new(self.directory.as_ref()?.discover(&self.name, key)?);
        write(&self.objects).insert(key.as_bytes().to_vec(), Some(object.clone()));
        Some(object)
    }

    /// Puts an object in place if `condition` agrees to what is there; nothing comes between the two.
    pub fn put(
        &self,
        key: &str,
        mut object: Object,
        condition: impl FnOnce(Option<&Object>) -> Answer<()>,
    ) -> Answer<Arc<Object>> {
        let synthetic = self.synthetic(key);
        let mut objects = write(&self.objects);
        let current = match objects.get(key.as_bytes()) {
            Some(entry) => entry.as_deref(),
            None => synthetic.as_ref(),
        };
        condition(current)?;
        if let Some(directory) = &self.directory {
            directory.publish(&self.name, key, &mut object)?;
        }
        let object = Arc::new(object);
        objects.insert(key.as_bytes().to_vec(), Some(object.clone()));
        Ok(object)
    }

    fn synthetic(&self, key: &str) -> Option<Object> {
        read(&self.sequences).iter().find_map(|s| Some(synthetic(s, s.find(key)?)))
    }

    /// Removes an object if `condition` agrees; what was there is returned.
    pub fn delete(
        &self,
        key: &str,
        condition: impl FnOnce(Option<&Object>) -> Answer<()>,
    ) -> Answer<Option<Arc<Object>>> {
        let synthetic = self.synthetic(key);
        let hides_synthetic = synthetic.is_some();
        let mut objects = write(&self.objects);
        let current = match objects.get(key.as_bytes()) {
            Some(entry) => entry.clone(),
            None => synthetic.map(Arc::new),
        };
        condition(current.as_deref())?;
        if let (Some(directory), Some(object)) = (&self.directory, &current) {
            directory.remove(&self.name, key, object).map_err(Failure::Io)?;
        }
        if hides_synthetic {
            objects.insert(key.as_bytes().to_vec(), None);
        } else {
            objects.remove(key.as_bytes());
        }
        Ok(current)
    }

    pub fn add_upload(&self, upload: Arc<Upload>) {
        lock(&self.uploads).insert(upload.id.clone(), upload);
    }

    pub fn upload(&self, key: &str, id: &str) -> Option<Arc<Upload>> {
        lock(&self.uploads).get(id).filter(|upload| upload.key == key).cloned()
    }

    pub fn remove_upload(&self, id: &str) -> Option<Arc<Upload>> {
        lock(&self.uploads).remove(id)
    }

    /// Uploads in progress by key, then by age.
    pub fn uploads(&self) -> Vec<Arc<Upload>> {
        let mut uploads: Vec<_> = lock(&self.uploads).values().cloned().collect();
        uploads.sort_by(|a, b| (a.key.as_bytes(), a.initiated, &a.id).cmp(&(b.key.as_bytes(), b.initiated, &b.id)));
        uploads
    }
}

/// When synthetic objects were last changed: 2024-01-01, so that listings do not depend on the day.
pub const SYNTHETIC_MODIFIED: Timestamp = Timestamp { seconds: 1_704_067_200, millis: 0 };

/// The two halves of a synthetic object's ETag.
pub fn synthetic_etag_words(seed: u64, size: u64) -> [u64; 2] {
    [mix(seed), mix(seed ^ mix(size))]
}

pub fn synthetic_etag(seed: u64, size: u64) -> String {
    hex(&synthetic_etag_words(seed, size).map(u64::to_be_bytes).concat())
}

pub fn synthetic(sequence: &Sequence, index: u64) -> Object {
    let (seed, size) = (sequence.content_seed(index), sequence.size(index));
    Object {
        content: Content::Synthetic { seed },
        size,
        etag: synthetic_etag(seed, size),
        modified: SYNTHETIC_MODIFIED,
        attributes: Attributes::default(),
        checksum: None,
        parts: Vec::new(),
    }
}
