//! Buckets, objects and uploads in progress.
pub mod bucket;
pub mod content;
pub mod directory;
pub mod listing;
pub mod object;
pub mod sequence;
pub mod upload;
pub mod versions;
pub mod versions_listing;

use crate::config::{BucketConfig, Config};
use crate::error::S3Error;
use bucket::Bucket;
use directory::Directory;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use versions::Versioning;

// A request that panicked leaves maps that are whole: each is changed by one insertion or removal.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Every bucket of the server.
pub struct Store {
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
    pub directory: Option<Arc<Directory>>,
    region: String,
    /// Whether buckets have versions from the start.
    versioned: bool,
}

impl Store {
    pub fn new(config: &Config) -> io::Result<Self> {
        let directory = config.directory.as_deref().map(Directory::open).transpose()?.map(Arc::new);
        let versioned = config.variant.always_versioned && directory.is_none();
        let store = Self { buckets: RwLock::default(), directory, region: config.region.clone(), versioned };
        if let Some(directory) = &store.directory {
            for name in directory.buckets()? {
                store.create(&BucketConfig { name, ..BucketConfig::default() }).map_err(io::Error::other)?;
            }
        }
        for bucket in &config.buckets {
            store.create(bucket).map_err(io::Error::other)?;
        }
        Ok(store)
    }

    /// Makes a bucket, or gives an existing one the settings named.
    pub fn create(&self, config: &BucketConfig) -> Result<Arc<Bucket>, String> {
        if config.name.is_empty() || config.name.contains('/') || config.name.starts_with('.') {
            return Err(format!("{:?} cannot be the name of a bucket", config.name));
        }
        let bucket = {
            let mut buckets = write(&self.buckets);
            match buckets.get(&config.name) {
                Some(bucket) => bucket.clone(),
                None => {
                    let bucket = Bucket::open(config, &self.region, self.directory.clone());
                    let bucket = Arc::new(bucket.map_err(|error| error.to_string())?);
                    if self.versioned {
                        bucket.set_versioning(Versioning::Enabled)?;
                    }
                    buckets.insert(config.name.clone(), bucket.clone());
                    bucket
                }
            }
        };
        bucket.configure(config)?;
        Ok(bucket)
    }

    pub fn find(&self, name: &str) -> Option<Arc<Bucket>> {
        read(&self.buckets).get(name).cloned()
    }

    pub fn bucket(&self, name: &str) -> Result<Arc<Bucket>, S3Error> {
        self.find(name).ok_or_else(|| S3Error::no_such_bucket(name))
    }

    pub fn all(&self) -> Vec<Arc<Bucket>> {
        read(&self.buckets).values().cloned().collect()
    }

    /// Removes an empty bucket.
    pub fn remove(&self, name: &str) -> Result<(), S3Error> {
        let mut buckets = write(&self.buckets);
        let bucket = buckets.get(name).ok_or_else(|| S3Error::no_such_bucket(name))?;
        if !bucket.is_empty() {
            let message = "The bucket you tried to delete is not empty";
            return Err(S3Error::new(409, "BucketNotEmpty", message).with("BucketName", name));
        }
        if let Some(directory) = &self.directory {
            directory.remove_bucket(name).map_err(|error| S3Error::internal(&error))?;
        }
        buckets.remove(name);
        Ok(())
    }
}
