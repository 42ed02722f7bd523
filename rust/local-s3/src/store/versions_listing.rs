//! Versions in the order in which S3 lists them: by key, the newest first.
use super::bucket::Bucket;
use super::listing::{Item, Walk, find, successor};
use super::object::NULL_VERSION;
use super::read;
use super::versions::Version;
use crate::date::Timestamp;
use std::ops::Bound;

pub struct ListedVersion {
    pub key: Vec<u8>,
    pub id: String,
    pub is_latest: bool,
    pub modified: Timestamp,
    /// None is a delete marker.
    pub item: Option<Item>,
}

/// Where a page of versions begins.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    Start,
    /// Behind every version of a key.
    Key(&'a [u8]),
    /// Behind one version of it.
    Version(&'a [u8], &'a str),
    /// Behind every key that begins so.
    Prefix(&'a [u8]),
}

#[derive(Default)]
pub struct VersionsPage {
    pub versions: Vec<ListedVersion>,
    pub prefixes: Vec<Vec<u8>>,
    pub is_truncated: bool,
}

impl VersionsPage {
    fn is_full(&mut self, max_keys: usize) -> bool {
        self.is_truncated = self.versions.len() + self.prefixes.len() == max_keys;
        self.is_truncated
    }
}

impl Bucket {
    /// One page of at most `max_keys` versions and common prefixes.
    pub fn list_versions(&self, prefix: &str, delimiter: &str, from: From<'_>, max_keys: usize) -> VersionsPage {
        let mut page = VersionsPage::default();
        let bound = match from {
            From::Start => Vec::new(),
            From::Key(key) => [key, b"\0"].concat(),
            From::Version(key, _) => key.to_vec(),
            From::Prefix(prefix) => match successor(prefix) {
                Some(next) => next,
                None => return page,
            },
        };
        if max_keys == 0 {
            return page;
        }
        let index = read(&self.index);
        let sequences = read(&self.sequences);
        let mut bound = bound.max(prefix.as_bytes().to_vec());
        let mut walk = Walk::new(&index.current, &sequences, &bound);
        'seek: loop {
            walk.seek(&bound);
            let mut pasts = index.history.range::<[u8], _>((Bound::Included(&bound[..]), Bound::Unbounded)).peekable();
            let mut current = None;
            loop {
                if current.is_none() {
                    let mut key = Vec::new();
                    current = walk.next(&mut key).map(|item| (key, item));
                }
                let past = pasts.next_if(|(past, _)| current.as_ref().is_none_or(|(key, _)| *past <= key));
                let (key, versions) = match past {
                    Some((past, versions)) => {
                        // The current object is the newest of them.
                        current.take_if(|(key, _)| key == past);
                        (past.clone(), listed(past, versions))
                    }
                    None => match current.take() {
                        Some((key, item)) => (key.clone(), vec![alone(key, item)]),
                        None => return page,
                    },
                };
                let Some(rest) = key.strip_prefix(prefix.as_bytes()) else { return page };
                if let Some(at) = find(rest, delimiter.as_bytes()) {
                    if page.is_full(max_keys) {
                        return page;
                    }
                    let common = key[..prefix.len() + at + delimiter.len()].to_vec();
                    let next = successor(&common);
                    page.prefixes.push(common);
                    match next {
                        Some(next) => bound = next,
                        None => return page,
                    }
                    continue 'seek;
                }
                let mut versions = versions.into_iter();
                if let From::Version(marker, id) = from
                    && marker == key
                {
                    versions.by_ref().find(|version| version.id == id);
                }
                for version in versions {
                    if page.is_full(max_keys) {
                        return page;
                    }
                    page.versions.push(version);
                }
            }
        }
    }
}

/// The versions of a key, the newest first.
fn listed(key: &[u8], versions: &[Version]) -> Vec<ListedVersion> {
    let count = versions.len();
    let listed = |(place, version): (usize, &Version)| ListedVersion {
        key: key.to_vec(),
        id: version.id.clone(),
        is_latest: place + 1 == count,
        modified: version.modified,
        item: version.object.clone().map(Item::Stored),
    };
    versions.iter().enumerate().rev().map(listed).collect()
}

/// An object that has no other version.
fn alone(key: Vec<u8>, item: Item) -> ListedVersion {
    let modified = item.modified();
    ListedVersion { key, id: NULL_VERSION.to_owned(), is_latest: true, modified, item: Some(item) }
}
