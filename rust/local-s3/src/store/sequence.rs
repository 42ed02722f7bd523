//! Many synthetic objects that need no memory: keys and sizes are computed from their place in key order.
use super::content::mix;
use crate::config::SyntheticConfig;
use crate::date::Civil;
use crate::digits::{push_hex, push_padded};
use std::cmp::Ordering;

/// `count` keys in UTF-8 byte order.
#[derive(Debug)]
pub struct Sequence {
    prefix: String,
    suffix: String,
    pattern: Pattern,
    pub count: u64,
    /// The first key and the last.
    pub first: String,
    pub last: String,
    size_bytes: u64,
    max_size_bytes: u64,
    seed: u64,
}

#[derive(Debug)]
enum Pattern {
    Literal,
    /// Zero-padded numbers, so that their order is that of the numbers.
    Number {
        width: usize,
    },
    /// Spread evenly over the whole space of UUIDs, `step` apart, with noise between neighbours.
    Uuid {
        step: u128,
    },
    /// `2021/03/04/05-06-07-<number>`, evenly over three years.
    Date {
        width: usize,
    },
}

/// 2021-01-01 and three years, in seconds.
const FIRST_DATE_S: u64 = 1_609_459_200;
const DATES_S: u64 = 94_608_000;

impl Sequence {
    /// None when the key has no place for what tells `count` objects apart.
    pub fn new(config: &SyntheticConfig) -> Option<Self> {
        let width = config.count.saturating_sub(1).max(1).to_string().len();
        let (prefix, suffix, pattern) = if let Some((prefix, suffix)) = config.key.split_once("{}") {
            (prefix, suffix, Pattern::Number { width: width.max(8) })
        } else if let Some((prefix, suffix)) = config.key.split_once("{uuid}") {
            (prefix, suffix, Pattern::Uuid { step: u128::MAX / u128::from(config.count.max(1)) })
        } else if let Some((prefix, suffix)) = config.key.split_once("{date}") {
            (prefix, suffix, Pattern::Date { width })
        } else if config.count <= 1 {
            (config.key.as_str(), "", Pattern::Literal)
        } else {
            return None;
        };
        let mut sequence = Self {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            pattern,
            count: config.count,
            first: String::new(),
            last: String::new(),
            size_bytes: config.size_bytes,
            max_size_bytes: config.max_size_bytes,
            seed: config.seed,
        };
        if sequence.count > 0 {
            (sequence.first, sequence.last) = (sequence.key(0), sequence.key(sequence.count - 1));
        }
        Some(sequence)
    }

    /// Key number `index`; a greater index has a greater key.
    pub fn key(&self, index: u64) -> String {
        let mut key = Vec::new();
        self.write_key(index, &mut key);
        // Made of text and digits.
        String::from_utf8(key).unwrap_or_default()
    }

    /// The same in place of what `out` holds.
    pub fn write_key(&self, index: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix.as_bytes());
        match self.pattern {
            Pattern::Literal => {}
            Pattern::Number { width } => push_padded(out, index, width),
            Pattern::Uuid { step } => {
                let noise = u128::from(mix(index ^ self.seed)) << 64 | u128::from(mix(!index ^ self.seed));
                let uuid = step * u128::from(index) + noise % step;
                let (high, low) = ((uuid >> 64) as u64, uuid as u64);
                for (dash, value, digits) in [
                    (&b""[..], high >> 32, 8),
                    (b"-", high >> 16, 4),
                    (b"-", high, 4),
                    (b"-", low >> 48, 4),
                    (b"-", low, 12),
                ] {
                    out.extend_from_slice(dash);
                    push_hex(out, value, digits);
                }
            }
            Pattern::Date { width } => {
                let second = FIRST_DATE_S + (u128::from(DATES_S) * u128::from(index) / u128::from(self.count)) as u64;
                let c = Civil::of(second as i64);
                push_padded(out, c.year as u64, 4);
                for (separator, value) in
                    [(b"/", c.month), (b"/", c.day), (b"/", c.hour), (b"-", c.minute), (b"-", c.second)]
                {
                    out.extend_from_slice(separator);
                    push_padded(out, u64::from(value), 2);
                }
                out.push(b'-');
                push_padded(out, index, width);
            }
        }
        out.extend_from_slice(self.suffix.as_bytes());
    }

    /// Index of the first key that is not before `bound`.
    pub fn lower_bound(&self, bound: &[u8]) -> u64 {
        if self.count == 0 || bound > self.last.as_bytes() {
            return self.count;
        }
        // A guess, steps of growing width to a bracket around the place, then halving: a few keys are made, not one
        // for every bit of `count`.
        let mut key = Vec::with_capacity(self.last.len());
        let mut is_before = |index: u64| {
            self.write_key(index, &mut key);
            key.as_slice() < bound
        };
        let guess = self.guess(bound).min(self.count - 1);
        let (mut low, mut high) = (guess, guess);
        let mut step = 1;
        if is_before(guess) {
            // The last key is not before the bound.
            while is_before(high) {
                low = high + 1;
                high = high.saturating_add(step).min(self.count - 1);
                step *= 2;
            }
        } else {
            while low > 0 && !is_before(low - 1) {
                high = low - 1;
                low = low.saturating_sub(step);
                step *= 2;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// About where `bound` lies; any answer is right, a close one is quick.
    fn guess(&self, bound: &[u8]) -> u64 {
        let Some(rest) = bound.strip_prefix(self.prefix.as_bytes()) else {
            return if bound.cmp(self.prefix.as_bytes()) == Ordering::Less { 0 } else { self.count };
        };
        match self.pattern {
            Pattern::Literal => 0,
            Pattern::Number { width } => {
                let digits = (0..width).map(|at| rest.get(at).filter(|b| b.is_ascii_digit()).map_or(0, |b| b - b'0'));
                digits.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit)))
            }
            Pattern::Uuid { step } => {
                let mut digits = rest.iter().filter(|b| **b != b'-').map(|b| char::from(*b).to_digit(16).unwrap_or(0));
                let uuid = (0..32).fold(0, |uuid: u128, _| uuid << 4 | u128::from(digits.next().unwrap_or(0)));
                (uuid / step) as u64
            }
            Pattern::Date { .. } => {
                let mut fields = rest.split(|b| !b.is_ascii_digit()).map(|digits| {
                    digits.iter().take(9).fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'))
                });
                let mut next = |least: u32, most: u32| fields.next().unwrap_or(0).clamp(least, most);
                let civil = Civil {
                    year: i64::from(next(0, 9999)),
                    month: next(1, 12),
                    day: next(1, 31),
                    hour: next(0, 23),
                    minute: next(0, 59),
                    second: next(0, 59),
                };
                let elapsed = (civil.seconds() - FIRST_DATE_S as i64).clamp(0, DATES_S as i64);
                (elapsed as u128 * u128::from(self.count) / u128::from(DATES_S)) as u64
            }
        }
    }

    pub fn find(&self, key: &str) -> Option<u64> {
        if !key.starts_with(&self.prefix) || !key.ends_with(&self.suffix) {
            return None;
        }
        let index = self.lower_bound(key.as_bytes());
        (index < self.count && self.key(index) == key).then_some(index)
    }

    pub fn size(&self, index: u64) -> u64 {
        if self.max_size_bytes <= self.size_bytes {
            return self.size_bytes;
        }
        self.size_bytes + mix(self.seed ^ index.wrapping_mul(3)) % (self.max_size_bytes - self.size_bytes + 1)
    }

    /// Seed of the bytes of object `index`; that of a single object is the configured one.
    pub fn content_seed(&self, index: u64) -> u64 {
        self.seed.wrapping_add(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(key: &str, count: u64) -> Sequence {
        let config = SyntheticConfig { key: key.to_owned(), count, size_bytes: 10, max_size_bytes: 20, seed: 3 };
        Sequence::new(&config).unwrap()
    }

    #[test]
    fn keys_rise_and_are_found() {
        for pattern in ["train/{}.jpg", "{uuid}", "logs/{date}.json"] {
            for count in [1, 2, 1000] {
                let sequence = sequence(pattern, count);
                let keys: Vec<_> = (0..count).map(|i| sequence.key(i)).collect();
                assert!(keys.is_sorted_by(|a, b| a < b), "{pattern}");
                for (index, key) in keys.iter().enumerate() {
                    assert_eq!(sequence.find(key), Some(index as u64));
                    assert!((10..=20).contains(&sequence.size(index as u64)));
                }
                assert_eq!(sequence.find("train/x"), None);
                assert_eq!(sequence.lower_bound(b"\xff"), count);
                assert_eq!((&sequence.first, &sequence.last), (&keys[0], &keys[keys.len() - 1]));
            }
        }
    }

    #[test]
    fn places_are_found_from_any_bound() {
        for pattern in ["train/{}.jpg", "{uuid}", "{uuid}/x", "logs/{date}.json"] {
            for count in [1, 3, 1000] {
                let sequence = sequence(pattern, count);
                let keys: Vec<_> = (0..count).map(|i| sequence.key(i)).collect();
                let mut bounds: Vec<Vec<u8>> =
                    ["", "a", "t", "train/", "train/9", "train/x", "logs/2022/", "logs/2023/13", "z"]
                        .iter()
                        .map(|bound| bound.as_bytes().to_vec())
                        .collect();
                for key in &keys {
                    for cut in 0..key.len() {
                        let beginning = &key.as_bytes()[..cut];
                        bounds.extend([beginning.to_vec(), [beginning, b"\xff"].concat(), [beginning, b" "].concat()]);
                    }
                }
                for bound in bounds {
                    let expected = keys.partition_point(|key| key.as_bytes() < bound.as_slice());
                    assert_eq!(sequence.lower_bound(&bound), expected as u64, "{pattern} {bound:?}");
                }
            }
        }
    }

    #[test]
    fn a_pattern_is_needed_for_many() {
        let config = SyntheticConfig { key: "k".to_owned(), count: 2, size_bytes: 0, max_size_bytes: 0, seed: 0 };
        assert!(Sequence::new(&config).is_none());
    }
}
