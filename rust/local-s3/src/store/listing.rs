//! Keys in UTF-8 byte order: stored and synthetic ones as one sequence.
use super::bucket::{Bucket, Object, SYNTHETIC_MODIFIED, synthetic_etag};
use super::read;
use super::sequence::Sequence;
use crate::checksum::{Algorithm, Kind};
use crate::date::Timestamp;
use std::ops::Bound;
use std::sync::Arc;

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    Start,
    Key(String),
    /// After every key that begins so: a common prefix ended the page before.
    Prefix(String),
}

pub struct Listed {
    pub key: String,
    pub size: u64,
    pub etag: String,
    pub modified: Timestamp,
    pub storage_class: Option<String>,
    pub checksum: Option<(Algorithm, Kind)>,
}

pub struct Page {
    pub objects: Vec<Listed>,
    pub prefixes: Vec<String>,
    /// Where the next page begins, when there is one.
    pub next: Option<After>,
}

/// The least byte string after every one that begins with `prefix`; None when there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            return Some(next);
        }
    }
    None
}

/// A synthetic sequence and the next of its keys.
struct Head {
    sequence: Arc<Sequence>,
    index: u64,
    key: String,
}

impl Head {
    fn seek(sequence: &Arc<Sequence>, bound: &Bound<Vec<u8>>) -> Option<Self> {
        let index = match bound {
            Bound::Included(key) => sequence.lower_bound(key),
            Bound::Excluded(key) => {
                let index = sequence.lower_bound(key);
                index + u64::from(index < sequence.count && sequence.key(index).as_bytes() == key)
            }
            Bound::Unbounded => 0,
        };
        Self { sequence: sequence.clone(), index, key: String::new() }.load()
    }

    fn load(mut self) -> Option<Self> {
        (self.index < self.sequence.count).then(|| {
            self.key = self.sequence.key(self.index);
            self
        })
    }

    fn listed(&self) -> Listed {
        let (seed, size) = (self.sequence.content_seed(self.index), self.sequence.size(self.index));
        Listed {
            key: self.key.clone(),
            size,
            etag: synthetic_etag(seed, size),
            modified: SYNTHETIC_MODIFIED,
            storage_class: None,
            checksum: None,
        }
    }
}

fn listed(key: &str, object: &Object) -> Listed {
    Listed {
        key: key.to_owned(),
        size: object.size,
        etag: object.etag.clone(),
        modified: object.modified,
        storage_class: object.attributes.storage_class.clone(),
        checksum: object.checksum.as_ref().map(|c| (c.algorithm, c.kind)),
    }
}

impl Bucket {
    /// One page of at most `max_keys` keys and common prefixes.
    pub fn list(&self, prefix: &str, delimiter: &str, after: &After, max_keys: usize) -> Page {
        let mut page = Page { objects: Vec::new(), prefixes: Vec::new(), next: None };
        let mut bound = match after {
            After::Start => Bound::Included(prefix.as_bytes().to_vec()),
            After::Key(key) if key.as_bytes() < prefix.as_bytes() => Bound::Included(prefix.as_bytes().to_vec()),
            After::Key(key) => Bound::Excluded(key.as_bytes().to_vec()),
            After::Prefix(skipped) => match successor(skipped.as_bytes()) {
                Some(next) => Bound::Included(next.max(prefix.as_bytes().to_vec())),
                None => return page,
            },
        };
        if max_keys == 0 {
            return page;
        }
        let objects = read(&self.objects);
        let sequences = read(&self.sequences);
        'seek: loop {
            let mut stored = objects.range::<[u8], _>((bound.as_ref().map(Vec::as_slice), Bound::Unbounded)).peekable();
            let mut heads: Vec<Head> = sequences.iter().filter_map(|s| Head::seek(s, &bound)).collect();
            loop {
                let first = (0..heads.len()).min_by(|a, b| heads[*a].key.cmp(&heads[*b].key));
                let synthetic_key = first.map(|at| heads[at].key.as_bytes());
                let from_store = match (stored.peek(), synthetic_key) {
                    (None, None) => break 'seek,
                    (Some((key, _)), Some(synthetic)) => key.as_slice() <= synthetic,
                    (stored, _) => stored.is_some(),
                };
                let entry = if from_store {
                    let Some((key, object)) = stored.next() else { break 'seek };
                    // A stored object, or the mark of a deleted one, hides the synthetic ones of its name.
                    heads = heads
                        .into_iter()
                        .filter_map(|h| if h.key.as_bytes() == key { advance(h) } else { Some(h) })
                        .collect();
                    let Some(object) = object else { continue };
                    // Keys were checked to be UTF-8 when they came in.
                    listed(std::str::from_utf8(key).unwrap_or_default(), object)
                } else {
                    let Some(at) = first else { break 'seek };
                    let head = heads.swap_remove(at);
                    let entry = head.listed();
                    heads.extend(advance(head));
                    // Two sequences may hold one key.
                    heads = heads
                        .into_iter()
                        .filter_map(|h| if h.key == entry.key { advance(h) } else { Some(h) })
                        .collect();
                    entry
                };
                let Some(rest) = entry.key.strip_prefix(prefix) else { break 'seek };
                if page.objects.len() + page.prefixes.len() == max_keys {
                    page.next = Some(match (page.objects.last(), page.prefixes.last()) {
                        (Some(object), Some(common)) if *common > object.key => After::Prefix(common.clone()),
                        (Some(object), _) => After::Key(object.key.clone()),
                        (None, Some(common)) => After::Prefix(common.clone()),
                        (None, None) => break 'seek,
                    });
                    break 'seek;
                }
                let cut = if delimiter.is_empty() { None } else { rest.find(delimiter) };
                match cut {
                    None => page.objects.push(entry),
                    Some(at) => {
                        let common = entry.key[..prefix.len() + at + delimiter.len()].to_owned();
                        let Some(next) = successor(common.as_bytes()) else { break 'seek };
                        // A start-after within a common prefix still lists the prefix, as S3 does.
                        page.prefixes.push(common);
                        bound = Bound::Included(next);
                        continue 'seek;
                    }
                }
            }
        }
        page
    }
}

fn advance(mut head: Head) -> Option<Head> {
    head.index += 1;
    head.load()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BucketConfig, SyntheticConfig};
    use crate::store::bucket::Attributes;
    use crate::store::content::Content;

    fn bucket(keys: &[&str], synthetic: &[(&str, u64)]) -> Bucket {
        let config = BucketConfig { name: "b".to_owned(), ..BucketConfig::default() };
        let bucket = Bucket::open(&config, "r", None).unwrap();
        for (key, count) in synthetic {
            let config =
                SyntheticConfig { key: (*key).to_owned(), count: *count, size_bytes: 1, max_size_bytes: 0, seed: 0 };
            bucket.add_synthetic(&config).unwrap();
        }
        for key in keys {
            let object = Object {
                content: Content::Discarded,
                size: 0,
                etag: String::new(),
                modified: SYNTHETIC_MODIFIED,
                attributes: Attributes::default(),
                checksum: None,
                parts: Vec::new(),
            };
            assert!(bucket.put(key, object, |_| Ok(())).is_ok());
        }
        bucket
    }

    /// Every page of a listing, as "key" and "prefix*".
    fn all(bucket: &Bucket, prefix: &str, delimiter: &str, max_keys: usize) -> Vec<String> {
        let mut out = Vec::new();
        let mut after = After::Start;
        loop {
            let page = bucket.list(prefix, delimiter, &after, max_keys);
            let mut found: Vec<_> = page.objects.iter().map(|o| o.key.clone()).collect();
            found.extend(page.prefixes.iter().map(|p| format!("{p}*")));
            assert!(found.len() <= max_keys);
            found.sort();
            out.extend(found);
            match page.next {
                Some(next) => after = next,
                None => return out,
            }
        }
    }

    #[test]
    fn stored_and_synthetic_keys_are_one_sequence() {
        let bucket = bucket(&["a", "n/00000001", "z"], &[("n/{}", 3), ("n/00000002", 1)]);
        assert!(bucket.delete("n/00000000", |_| Ok(())).is_ok());
        for max_keys in 1..7 {
            assert_eq!(all(&bucket, "", "", max_keys), ["a", "n/00000001", "n/00000002", "z"]);
            assert_eq!(all(&bucket, "", "/", max_keys), ["a", "n/*", "z"]);
            assert_eq!(all(&bucket, "n/", "/", max_keys), ["n/00000001", "n/00000002"]);
        }
    }

    #[test]
    fn common_prefixes_are_skipped_not_walked() {
        let bucket = bucket(&["x", "é/1", "é/2"], &[("big/{}", 10_000_000)]);
        for max_keys in 1..5 {
            assert_eq!(all(&bucket, "", "/", max_keys), ["big/*", "x", "é/*"]);
        }
        let page = bucket.list("", "", &After::Key("big/09999998".to_owned()), 2);
        let keys: Vec<_> = page.objects.iter().map(|o| o.key.as_str()).collect();
        assert_eq!(keys, ["big/09999999", "x"]);
    }

    #[test]
    fn successors() {
        assert_eq!(successor(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(successor(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
    }
}
