//! Keys in UTF-8 byte order: stored and synthetic ones as one sequence.
//!
//! A page costs what is on it: a walk begins by one search in each of the two maps, a common prefix is left by another
//! one, and no key is copied more than once. Locks are held while keys are collected, not while they are written out.
use super::bucket::Bucket;
use super::object::{Object, SYNTHETIC_MODIFIED, synthetic_etag_words};
use super::read;
use super::sequence::Sequence;
use super::versions::Objects;
use crate::checksum::{Algorithm, Kind};
use crate::date::Timestamp;
use crate::digits::push_hex;
use crate::faults::fingerprint;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::{Bound, Range};
use std::sync::Arc;

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    Start,
    Key(Vec<u8>),
    /// After every key that begins so: a common prefix ended the page before.
    Prefix(Vec<u8>),
}

/// An object of a page.
pub struct Listed {
    name: Range<usize>,
    pub item: Item,
}

/// What a page tells of an object, but for its key.
pub enum Item {
    Stored(Arc<Object>),
    Synthetic { seed: u64, size: u64 },
}

impl Item {
    pub fn size(&self) -> u64 {
        match self {
            Self::Stored(object) => object.size,
            Self::Synthetic { size, .. } => *size,
        }
    }

    /// Appends the ETag, without quotes.
    pub fn write_etag(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stored(object) => out.extend_from_slice(object.etag.as_bytes()),
            Self::Synthetic { seed, size } => {
                synthetic_etag_words(*seed, *size).into_iter().for_each(|word| push_hex(out, word, 16));
            }
        }
    }

    pub fn modified(&self) -> Timestamp {
        match self {
            Self::Stored(object) => object.modified,
            Self::Synthetic { .. } => SYNTHETIC_MODIFIED,
        }
    }

    pub fn object(&self) -> Option<&Object> {
        match self {
            Self::Stored(object) => Some(object),
            Self::Synthetic { .. } => None,
        }
    }

    pub fn checksum(&self) -> Option<(Algorithm, Kind)> {
        self.object()?.checksum.as_ref().map(|checksum| (checksum.algorithm, checksum.kind))
    }
}

#[derive(Default)]
pub struct Page {
    /// Keys and common prefixes, one behind the other.
    names: Vec<u8>,
    pub objects: Vec<Listed>,
    prefixes: Vec<Range<usize>>,
    /// Where the next page begins, when there is one.
    pub next: Option<After>,
}

impl Page {
    pub fn len(&self) -> usize {
        self.objects.len() + self.prefixes.len()
    }

    pub fn key(&self, object: &Listed) -> &[u8] {
        &self.names[object.name.clone()]
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.objects.iter().map(|object| self.key(object))
    }

    pub fn prefixes(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.prefixes.iter().map(|prefix| &self.names[prefix.clone()])
    }

    /// The place behind the last key and the last common prefix.
    fn end(&self) -> Option<After> {
        match (self.keys().next_back(), self.prefixes().next_back()) {
            (key, Some(prefix)) if key.is_none_or(|key| key < prefix) => Some(After::Prefix(prefix.to_owned())),
            (key, _) => key.map(|key| After::Key(key.to_owned())),
        }
    }

    /// In an order that has nothing to do with that of the keys.
    pub fn shuffle(&mut self) {
        let Self { names, objects, .. } = self;
        objects.sort_by_key(|object| fingerprint(&[&names[object.name.clone()]]));
    }

    /// Puts the objects of another page in front of this one's.
    pub fn prepend(&mut self, other: Self) {
        let moved = self.names.len();
        self.names.extend_from_slice(&other.names);
        let shifted = other.objects.into_iter().map(|Listed { name, item }| {
            let name = name.start + moved..name.end + moved;
            Listed { name, item }
        });
        self.objects.splice(0..0, shifted);
    }

    /// Keeps the keys and common prefixes of which `keep` says so.
    fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let Self { names, objects, prefixes, .. } = self;
        objects.retain(|object| keep(&names[object.name.clone()]));
        prefixes.retain(|prefix| keep(&names[prefix.clone()]));
    }

    pub fn clear(&mut self) {
        self.objects.clear();
        self.prefixes.clear();
    }
}

/// The least byte string after every one that begins with `prefix`; None when there is none.
pub(super) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
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
struct Head<'a> {
    sequence: &'a Sequence,
    index: u64,
    key: Vec<u8>,
}

impl<'a> Head<'a> {
    fn new(sequence: &'a Sequence) -> Self {
        Self { sequence, index: 0, key: sequence.first.as_bytes().to_vec() }
    }

    /// Goes to a place; whether there is a key.
    fn go(&mut self, index: u64) -> bool {
        self.index = index;
        let exists = index < self.sequence.count;
        if exists {
            self.sequence.write_key(index, &mut self.key);
        }
        exists
    }

    /// Goes to the first key that is not before `bound`; whether there is one.
    fn seek(&mut self, bound: &[u8]) -> bool {
        self.key.as_slice() >= bound || self.go(self.sequence.lower_bound(bound))
    }
}

/// A walk over the keys of a bucket from one on.
pub(super) struct Walk<'a> {
    objects: &'a Objects,
    stored: Peekable<btree_map::Range<'a, Vec<u8>, Option<Arc<Object>>>>,
    /// By their first key.
    sequences: &'a [Arc<Sequence>],
    /// So many of them begin before the place where the walk is.
    begun: usize,
    /// Those among them that have not ended.
    heads: Vec<Head<'a>>,
}

impl<'a> Walk<'a> {
    pub fn new(objects: &'a Objects, sequences: &'a [Arc<Sequence>], bound: &[u8]) -> Self {
        let stored = objects.range::<[u8], _>(..).peekable();
        let mut walk = Self { objects, stored, sequences, begun: 0, heads: Vec::new() };
        walk.seek(bound);
        walk
    }

    /// Goes on to the first key that is not before `bound`, which is not before the place where the walk is.
    pub fn seek(&mut self, bound: &[u8]) {
        self.stored = self.objects.range::<[u8], _>((Bound::Included(bound), Bound::Unbounded)).peekable();
        self.heads.retain_mut(|head| head.seek(bound));
        let waiting = &self.sequences[self.begun..];
        let begun = waiting.partition_point(|sequence| sequence.first.as_bytes() < bound);
        for sequence in waiting[..begun].iter().filter(|sequence| sequence.last.as_bytes() >= bound) {
            let mut head = Head::new(sequence);
            if head.seek(bound) {
                self.heads.push(head);
            }
        }
        self.begun += begun;
    }

    /// The head with the least key; sequences that begin before all others, or with them, have one from here on.
    fn first_head(&mut self) -> Option<usize> {
        let heads = &mut self.heads;
        let mut first = (0..heads.len()).min_by(|a, b| heads[*a].key.cmp(&heads[*b].key));
        while let Some(sequence) = self.sequences.get(self.begun) {
            if first.is_some_and(|at| heads[at].key.as_slice() < sequence.first.as_bytes()) {
                break;
            }
            heads.push(Head::new(sequence));
            first = Some(heads.len() - 1);
            self.begun += 1;
        }
        first
    }

    /// Steps every synthetic sequence that is at this key.
    fn pass(&mut self, key: &[u8]) {
        self.heads.retain_mut(|head| head.key != key || head.go(head.index + 1));
    }

    /// Appends the next key to `names`.
    pub fn next(&mut self, names: &mut Vec<u8>) -> Option<Item> {
        loop {
            let first = self.first_head();
            let head = first.map(|at| &self.heads[at]);
            match (self.stored.peek(), head) {
                (None, None) => return None,
                (Some((key, _)), head) if head.is_none_or(|head| **key <= head.key) => {
                    let (key, object) = self.stored.next()?;
                    // A stored object, or the mark of a deleted one, hides the synthetic ones of its name.
                    self.pass(key);
                    if let Some(object) = object {
                        names.extend_from_slice(key);
                        return Some(Item::Stored(object.clone()));
                    }
                }
                (_, None) => return None,
                (_, Some(head)) => {
                    let (seed, size) = (head.sequence.content_seed(head.index), head.sequence.size(head.index));
                    let start = names.len();
                    names.extend_from_slice(&head.key);
                    match &mut self.heads[..] {
                        [head] => {
                            if !head.go(head.index + 1) {
                                self.heads.clear();
                            }
                        }
                        // Two sequences may hold one key.
                        _ => self.pass(&names[start..]),
                    }
                    return Some(Item::Synthetic { seed, size });
                }
            }
        }
    }
}

/// Where a delimiter begins.
pub(super) fn find(text: &[u8], delimiter: &[u8]) -> Option<usize> {
    match delimiter {
        [] => None,
        [byte] => text.iter().position(|b| b == byte),
        _ => text.windows(delimiter.len()).position(|window| window == delimiter),
    }
}

impl Bucket {
    /// One page of at most `max_keys` keys and common prefixes.
    pub fn list(&self, prefix: &str, delimiter: &str, after: &After, max_keys: usize) -> Page {
        let mut page = Page::default();
        let bound = match after {
            After::Start => Vec::new(),
            // The least string after the key.
            After::Key(key) => [key, &b"\0"[..]].concat(),
            After::Prefix(skipped) => match successor(skipped) {
                Some(next) => next,
                None => return page,
            },
        };
        if max_keys == 0 {
            return page;
        }
        let index = read(&self.index);
        let sequences = read(&self.sequences);
        let mut walk = Walk::new(&index.current, &sequences, bound.as_slice().max(prefix.as_bytes()));
        loop {
            let start = page.names.len();
            let Some(item) = walk.next(&mut page.names) else { break };
            let Some(rest) = page.names[start..].strip_prefix(prefix.as_bytes()) else { break };
            if page.len() == max_keys {
                page.next = page.end();
                break;
            }
            match find(rest, delimiter.as_bytes()) {
                None => page.objects.push(Listed { name: start..page.names.len(), item }),
                Some(at) => {
                    // A start-after within a common prefix still lists the prefix, as S3 does.
                    page.names.truncate(start + prefix.len() + at + delimiter.len());
                    page.prefixes.push(start..page.names.len());
                    let Some(next) = successor(&page.names[start..]) else { break };
                    walk.seek(&next);
                }
            }
        }
        page
    }
}

impl Bucket {
    /// Takes out what is below an object: `a/b` and the common prefix `a/` where there is `a`.
    pub fn hide_children(&self, page: &mut Page) {
        let index = read(&self.index);
        let is_object = |name: &[u8]| index.current.get(name).is_some_and(Option::is_some);
        page.retain(|name| {
            let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            !slashes.into_iter().any(|(at, _)| is_object(&name[..at]))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BucketConfig, SyntheticConfig};
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
            let object = Object::new(Content::Discarded, 0, String::new(), SYNTHETIC_MODIFIED);
            assert!(bucket.put(key, object, |_| Ok(())).is_ok());
        }
        bucket
    }

    fn text(name: &[u8]) -> String {
        String::from_utf8(name.to_vec()).unwrap()
    }

    /// Every page of a listing, as "key" and "prefix*".
    fn all(bucket: &Bucket, prefix: &str, delimiter: &str, max_keys: usize) -> Vec<String> {
        let mut out = Vec::new();
        let mut after = After::Start;
        loop {
            let page = bucket.list(prefix, delimiter, &after, max_keys);
            let mut found: Vec<_> = page.keys().map(text).collect();
            found.extend(page.prefixes().map(|prefix| text(prefix) + "*"));
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
        assert!(bucket.delete("n/00000000", None, |_| Ok(())).is_ok());
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
        let page = bucket.list("", "", &After::Key(b"big/09999998".to_vec()), 2);
        assert_eq!(page.keys().map(text).collect::<Vec<_>>(), ["big/09999999", "x"]);
    }

    #[test]
    fn any_number_of_sequences_is_one() {
        let folders: Vec<_> = (0..50).map(|n| format!("user-{n:02}/{{}}")).collect();
        let mut synthetic: Vec<_> = folders.iter().rev().map(|key| (key.as_str(), 3)).collect();
        // Some that others begin and end within.
        synthetic.extend([("{uuid}", 20), ("user-{}", 40), ("user-07/00000001", 1)]);
        let bucket = bucket(&["user-07/00000002", "user-07/1", "z"], &synthetic);
        let mut expected = all(&bucket, "", "", 1000);
        assert_eq!(expected.len(), 150 + 20 + 40 + 2);
        assert!(expected.is_sorted_by(|a, b| a < b));
        for max_keys in [1, 2, 7, 50] {
            assert_eq!(all(&bucket, "", "", max_keys), expected);
        }
        let cut = |key: &str| key.split_once('/').map_or(key.to_owned(), |(folder, _)| format!("{folder}/*"));
        expected = expected.iter().map(|key| cut(key)).collect();
        expected.dedup();
        for max_keys in [1, 2, 7, 50, 1000] {
            assert_eq!(all(&bucket, "", "/", max_keys), expected);
        }
        assert_eq!(all(&bucket, "user-0", "-", 1000).len(), 10 * 3 + 40 + 1);
    }

    #[test]
    fn successors() {
        assert_eq!(successor(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(successor(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
    }
}
