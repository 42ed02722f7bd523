//! Versions: what a key was before, and the marks of its deletion.
use super::object::{NULL_VERSION, Object};
use crate::date::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// None marks a synthetic object that was deleted.
pub type Objects = BTreeMap<Vec<u8>, Option<Arc<Object>>>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versioning {
    /// Never asked for.
    #[default]
    Off,
    Enabled,
    /// Versions stay; what is written now is the null version.
    Suspended,
}

#[derive(Clone, Debug)]
pub struct Version {
    pub id: String,
    pub modified: Timestamp,
    /// None is a delete marker.
    pub object: Option<Arc<Object>>,
}

/// The objects of a bucket, and what they were.
#[derive(Default)]
pub struct Index {
    pub versioning: Versioning,
    pub current: Objects,
    /// All versions, oldest first, of the keys that were written or deleted while there were versions.
    pub history: BTreeMap<Vec<u8>, Vec<Version>>,
}

/// What a deletion has done.
#[derive(Debug, Default)]
pub struct Deleted {
    pub object: Option<Arc<Object>>,
    /// The version that is gone, or the marker that was made.
    pub version: Option<String>,
    pub marker: bool,
}

/// Why there is no object to read.
#[derive(Debug)]
pub enum Missing {
    Key,
    /// The newest version is a delete marker.
    Deleted(Version),
    /// The version asked for is a delete marker.
    Marker(Version),
    Version,
}

fn new_id() -> String {
    static VERSIONS: AtomicU64 = AtomicU64::new(0);
    let number = VERSIONS.fetch_add(1, Ordering::Relaxed);
    let noise = super::content::mix(number ^ Timestamp::now().seconds as u64);
    format!("{noise:016x}.{number:015x}")
}

impl Index {
    /// Puts an object in place of `current`, which may be a synthetic one; the version's id is set.
    pub fn put(&mut self, key: &str, mut object: Object, current: Option<Arc<Object>>) -> Arc<Object> {
        if self.versioning == Versioning::Off {
            object.version = None;
            let object = Arc::new(object);
            self.current.insert(key.as_bytes().to_vec(), Some(object.clone()));
            return object;
        }
        let id = self.next_id();
        object.version = Some(id.clone());
        let object = Arc::new(object);
        let version = Version { id, modified: object.modified, object: Some(object.clone()) };
        self.add(key, version, current);
        self.current.insert(key.as_bytes().to_vec(), Some(object.clone()));
        object
    }

    /// Removes what a key holds; `is_synthetic` says that another object would show up behind it.
    pub fn delete(&mut self, key: &str, current: Option<Arc<Object>>, is_synthetic: bool, now: Timestamp) -> Deleted {
        if is_synthetic {
            self.current.insert(key.as_bytes().to_vec(), None);
        } else {
            self.current.remove(key.as_bytes());
        }
        if self.versioning == Versioning::Off {
            return Deleted { object: current, ..Deleted::default() };
        }
        let id = self.next_id();
        self.add(key, Version { id: id.clone(), modified: now, object: None }, current.clone());
        Deleted { object: current, version: Some(id), marker: true }
    }

    /// Removes one version for good; the one before it is the current one then.
    pub fn delete_version(&mut self, key: &str, id: &str, current: Option<Arc<Object>>, is_synthetic: bool) -> Deleted {
        let mut deleted = Deleted { version: Some(id.to_owned()), ..Deleted::default() };
        let Some(versions) = self.history.get_mut(key.as_bytes()) else {
            if id == NULL_VERSION {
                deleted.object = current;
                match is_synthetic {
                    true => self.current.insert(key.as_bytes().to_vec(), None),
                    false => self.current.remove(key.as_bytes()),
                };
            }
            return deleted;
        };
        if let Some(place) = versions.iter().position(|version| version.id == id) {
            let version = versions.remove(place);
            deleted.marker = version.object.is_none();
            deleted.object = version.object;
        }
        let newest = versions.last().and_then(|version| version.object.clone());
        if versions.is_empty() {
            self.history.remove(key.as_bytes());
        }
        match newest {
            Some(object) => self.current.insert(key.as_bytes().to_vec(), Some(object)),
            None if is_synthetic => self.current.insert(key.as_bytes().to_vec(), None),
            None => self.current.remove(key.as_bytes()),
        };
        deleted
    }

    /// A version of a key that has some; None stands for keys that have none.
    pub fn find(&self, key: &str, id: Option<&str>) -> Option<Result<Arc<Object>, Missing>> {
        let versions = self.history.get(key.as_bytes())?;
        let version = match id {
            Some(id) => versions.iter().find(|version| version.id == id),
            None => versions.last(),
        };
        Some(match (version, id) {
            (None, _) => Err(Missing::Version),
            (Some(Version { object: Some(object), .. }), _) => Ok(object.clone()),
            (Some(version), None) => Err(Missing::Deleted(version.clone())),
            (Some(version), Some(_)) => Err(Missing::Marker(version.clone())),
        })
    }

    /// Puts an object that has changed, but not its bytes, in place of itself.
    pub fn replace(&mut self, key: &str, old: &Arc<Object>, new: Object) {
        let new = Arc::new(new);
        if let Some(versions) = self.history.get_mut(key.as_bytes()) {
            for version in
                versions.iter_mut().filter(|version| version.object.as_ref().is_some_and(|o| Arc::ptr_eq(o, old)))
            {
                version.object = Some(new.clone());
            }
        }
        if let Some(Some(current)) = self.current.get_mut(key.as_bytes())
            && Arc::ptr_eq(current, old)
        {
            *current = new;
        }
    }

    fn next_id(&self) -> String {
        match self.versioning {
            Versioning::Enabled => new_id(),
            _ => NULL_VERSION.to_owned(),
        }
    }

    fn add(&mut self, key: &str, version: Version, current: Option<Arc<Object>>) {
        let before = |object: Arc<Object>| Version {
            id: object.version_id().to_owned(),
            modified: object.modified,
            object: Some(object),
        };
        let versions = self.history.entry(key.as_bytes().to_vec());
        let versions = versions.or_insert_with(|| current.map(before).into_iter().collect());
        // There is one null version at most.
        versions.retain(|other| other.id != version.id);
        versions.push(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::content::Content;
    use crate::store::object::SYNTHETIC_MODIFIED;

    fn object(etag: &str) -> Object {
        Object::new(Content::Discarded, 0, etag.to_owned(), SYNTHETIC_MODIFIED)
    }

    fn current(index: &Index) -> Option<Arc<Object>> {
        index.current.get(&b"k"[..]).cloned().flatten()
    }

    fn put(index: &mut Index, etag: &str) -> String {
        let before = current(index);
        index.put("k", object(etag), before).version_id().to_owned()
    }

    fn etags(index: &Index) -> Vec<&str> {
        let etag =
            |version: &'_ Version| version.object.as_ref().map_or("-", |o| Box::leak(o.etag.clone().into_boxed_str()));
        index.history.get(&b"k"[..]).map_or(Vec::new(), |versions| versions.iter().map(etag).collect())
    }

    #[test]
    fn what_was_there_before_is_the_null_version() {
        let mut index = Index::default();
        assert_eq!(put(&mut index, "a"), "null");
        index.versioning = Versioning::Enabled;
        let second = put(&mut index, "b");
        assert_eq!(etags(&index), ["a", "b"]);
        assert_eq!(index.find("k", Some("null")).unwrap().unwrap().etag, "a");
        assert_eq!(index.find("k", Some(&second)).unwrap().unwrap().etag, "b");
        assert!(matches!(index.find("k", Some("other")), Some(Err(Missing::Version))));
        index.versioning = Versioning::Suspended;
        assert_eq!(put(&mut index, "c"), "null");
        assert_eq!(etags(&index), ["b", "c"]);
    }

    #[test]
    fn markers_hide_and_are_removed() {
        let mut index = Index { versioning: Versioning::Enabled, ..Index::default() };
        let first = put(&mut index, "a");
        let before = current(&index);
        let deleted = index.delete("k", before, false, SYNTHETIC_MODIFIED);
        let marker = deleted.version.unwrap();
        assert!(deleted.marker && current(&index).is_none());
        assert!(matches!(index.find("k", None), Some(Err(Missing::Deleted(_)))));
        assert!(matches!(index.find("k", Some(&marker)), Some(Err(Missing::Marker(_)))));
        assert!(index.delete_version("k", &marker, None, false).marker);
        assert_eq!(current(&index).unwrap().etag, "a");
        index.delete_version("k", &first, None, false);
        assert!(current(&index).is_none() && index.history.is_empty());
    }
}
