//! One bucket: objects in key order, synthetic ones beside them, and uploads in progress.
use super::directory::Directory;
use super::object::{NULL_VERSION, Object, synthetic};
use super::sequence::Sequence;
use super::upload::Upload;
use super::versions::{Deleted, Index, Missing, Versioning};
use super::{lock, read, write};
use crate::config::{BucketConfig, SyntheticConfig};
use crate::date::Timestamp;
use crate::error::{Answer, Failure};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

pub struct Bucket {
    pub name: String,
    pub region: String,
    pub created: Timestamp,
    public: AtomicBool,
    sink: AtomicBool,
    requester_pays: AtomicBool,
    pub(super) index: RwLock<Index>,
    pub(super) sequences: RwLock<Vec<Arc<Sequence>>>,
    uploads: Mutex<BTreeMap<String, Arc<Upload>>>,
    directory: Option<Arc<Directory>>,
}

impl Bucket {
    pub fn open(config: &BucketConfig, region: &str, directory: Option<Arc<Directory>>) -> io::Result<Self> {
        let current = match &directory {
            Some(directory) => directory.open_bucket(&config.name)?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            name: config.name.clone(),
            region: config.region.clone().unwrap_or_else(|| region.to_owned()),
            created: Timestamp::now(),
            public: AtomicBool::new(false),
            sink: AtomicBool::new(false),
            requester_pays: AtomicBool::new(false),
            index: RwLock::new(Index { current, ..Index::default() }),
            sequences: RwLock::default(),
            uploads: Mutex::default(),
            directory,
        })
    }

    pub fn configure(&self, config: &BucketConfig) -> Result<(), String> {
        self.public.fetch_or(config.public, Ordering::Relaxed);
        self.sink.fetch_or(config.sink, Ordering::Relaxed);
        self.requester_pays.fetch_or(config.requester_pays, Ordering::Relaxed);
        if config.versioned {
            self.set_versioning(Versioning::Enabled)?;
        }
        config.synthetic.iter().try_for_each(|synthetic| self.add_synthetic(synthetic))
    }

    pub fn versioning(&self) -> Versioning {
        read(&self.index).versioning
    }

    pub fn set_versioning(&self, versioning: Versioning) -> Result<(), String> {
        if self.directory.is_some() {
            return Err("a bucket in a directory keeps no versions: a file is what its name holds".to_owned());
        }
        write(&self.index).versioning = versioning;
        Ok(())
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
        let index = read(&self.index);
        index.current.values().all(Option::is_none) && index.history.is_empty() && read(&self.sequences).is_empty()
    }

    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        if let Some(entry) = read(&self.index).current.get(key.as_bytes()) {
            return entry.clone();
        }
        if let Some(object) = self.synthetic(key) {
            return Some(Arc::new(object));
        }
        // A file that was put into the folder by hand.
        let object = Arc::new(self.directory.as_ref()?.discover(&self.name, key)?);
        write(&self.index).current.insert(key.as_bytes().to_vec(), Some(object.clone()));
        Some(object)
    }

    /// The version asked for, or the newest.
    pub fn find(&self, key: &str, version: Option<&str>) -> Result<Arc<Object>, Missing> {
        if let Some(found) = read(&self.index).find(key, version) {
            return found;
        }
        match version {
            None => self.get(key).ok_or(Missing::Key),
            Some(NULL_VERSION) => self.get(key).ok_or(Missing::Version),
            Some(_) => Err(Missing::Version),
        }
    }

    /// Puts an object in place if `condition` agrees to what is there; nothing comes between the two.
    pub fn put(
        &self,
        key: &str,
        mut object: Object,
        condition: impl FnOnce(Option<&Object>) -> Answer<()>,
    ) -> Answer<Arc<Object>> {
        let synthetic = self.synthetic(key).map(Arc::new);
        let mut index = write(&self.index);
        let current = index.current.get(key.as_bytes()).cloned().unwrap_or(synthetic);
        condition(current.as_deref())?;
        if let Some(directory) = &self.directory {
            directory.publish(&self.name, key, &mut object)?;
        }
        Ok(index.put(key, object, current))
    }

    /// Puts an object that has changed, but not its bytes, in place of itself, if it is still there.
    pub fn replace(&self, key: &str, old: &Arc<Object>, new: Object) {
        write(&self.index).replace(key, old, new);
    }

    fn synthetic(&self, key: &str) -> Option<Object> {
        read(&self.sequences).iter().find_map(|s| Some(synthetic(s, s.find(key)?)))
    }

    /// Removes an object, or one of its versions for good, if `condition` agrees to what is there.
    pub fn delete(
        &self,
        key: &str,
        version: Option<&str>,
        condition: impl FnOnce(Option<&Object>) -> Answer<()>,
    ) -> Answer<Deleted> {
        let synthetic = self.synthetic(key).map(Arc::new);
        let hides_synthetic = synthetic.is_some();
        let mut index = write(&self.index);
        let current = index.current.get(key.as_bytes()).cloned().unwrap_or(synthetic);
        condition(current.as_deref())?;
        let removes_file = version.is_none_or(|id| id == NULL_VERSION);
        if let (Some(directory), Some(object), true) = (&self.directory, &current, removes_file) {
            directory.remove(&self.name, key, object).map_err(Failure::Io)?;
        }
        Ok(match version {
            Some(id) => index.delete_version(key, id, current, hides_synthetic),
            None => index.delete(key, current, hides_synthetic, Timestamp::now()),
        })
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
