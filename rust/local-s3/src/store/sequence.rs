//! Many synthetic objects that need no memory: keys and sizes are computed from their place in key order.
use super::content::mix;
use crate::config::SyntheticConfig;
use crate::date::Civil;

/// `count` keys in UTF-8 byte order.
#[derive(Debug)]
pub struct Sequence {
    prefix: String,
    suffix: String,
    pattern: Pattern,
    pub count: u64,
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
    /// Spread evenly over the whole space of UUIDs, with noise between neighbours.
    Uuid,
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
            (prefix, suffix, Pattern::Uuid)
        } else if let Some((prefix, suffix)) = config.key.split_once("{date}") {
            (prefix, suffix, Pattern::Date { width })
        } else if config.count <= 1 {
            (config.key.as_str(), "", Pattern::Literal)
        } else {
            return None;
        };
        Some(Self {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            pattern,
            count: config.count,
            size_bytes: config.size_bytes,
            max_size_bytes: config.max_size_bytes,
            seed: config.seed,
        })
    }

    /// Key number `index`; a greater index has a greater key.
    pub fn key(&self, index: u64) -> String {
        let Self { prefix, suffix, .. } = self;
        match self.pattern {
            Pattern::Literal => prefix.clone(),
            Pattern::Number { width } => format!("{prefix}{index:0width$}{suffix}"),
            Pattern::Uuid => {
                let step = u128::MAX / u128::from(self.count);
                let noise = u128::from(mix(index ^ self.seed)) << 64 | u128::from(mix(!index ^ self.seed));
                let uuid = step * u128::from(index) + noise % step;
                let hex = format!("{uuid:032x}");
                let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
                format!("{prefix}{a}-{b}-{c}-{d}-{e}{suffix}")
            }
            Pattern::Date { width } => {
                let second = FIRST_DATE_S + (u128::from(DATES_S) * u128::from(index) / u128::from(self.count)) as u64;
                let c = Civil::of(second as i64);
                let (date, clock) = ((c.year, c.month, c.day), (c.hour, c.minute, c.second));
                format!(
                    "{prefix}{:04}/{:02}/{:02}/{:02}-{:02}-{:02}-{index:0width$}{suffix}",
                    date.0, date.1, date.2, clock.0, clock.1, clock.2
                )
            }
        }
    }

    /// Index of the first key that is not before `bound`.
    pub fn lower_bound(&self, bound: &[u8]) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle).as_bytes() < bound {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
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
            }
        }
    }

    #[test]
    fn a_pattern_is_needed_for_many() {
        let config = SyntheticConfig { key: "k".to_owned(), count: 2, size_bytes: 0, max_size_bytes: 0, seed: 0 };
        assert!(Sequence::new(&config).is_none());
    }
}
