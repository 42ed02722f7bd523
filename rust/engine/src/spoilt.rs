//! Whatever comes from outside, spoilt at random: readers refuse it or take it, and never panic, hang or keep more than came.
//!
//! `make fuzz SECONDS=60` goes on for so long, from another seed each time; inputs that once broke something are in `MET`.
use crate::checksum::{self, Algorithm};
use crate::date::{parse_http_date, parse_iso8601};
use crate::head::{Length, MAX_HEADERS, parse_head};
use crate::proxy::Proxies;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// xorshift64*, so that a failure repeats.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// What a test does with one input, the inputs it begins with, and what they are spoilt with.
struct Trial {
    name: &'static str,
    run: fn(&[u8]),
    begin: &'static [&'static [u8]],
    splinters: &'static [&'static [u8]],
}

const TRIALS: [Trial; 4] = [
    Trial {
        name: "head",
        run: head,
        begin: &[
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nETag: \"abc\"\r\ncontent-range: bytes 5-14/100\r\n\
              x-amz-request-id: R1\r\nLast-Modified: Wed, 12 Oct 2009 17:50:00 GMT\r\nConnection: keep-alive\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: Wed, 12 Oct 2009 17:50:00 GMT\r\n\r\n",
            b"HTTP/1.0 503 Slow Down\nRetry-After: 1.5\nConnection: close, x\nx-amz-bucket-region: eu-west-1\n\n",
            b"HTTP/1.1 416 x\r\nContent-Range: bytes */7\r\nContent-Length: 0\r\n\r\n",
        ],
        splinters: &[
            b"\r\n",
            b"\n",
            b"\r",
            b":",
            b" ",
            b"\t",
            b"\0",
            b"\xff",
            b"\xc3\xa9",
            b"-1",
            b"+1",
            b"99999999999999999999",
            b",",
            b"chunked",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"bytes ",
            b"*/",
            b"nan",
            b"inf",
            b"1e400",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"\r\n\r\n",
            b"Retry-After: -0\r\n",
        ],
    },
    Trial {
        name: "date",
        run: date,
        begin: &[
            b"Wed, 12 Oct 2009 17:50:00 GMT",
            b"Wednesday, 12-Oct-09 17:50:00 GMT",
            b"Wed Oct  2 17:50:00 2009",
            b"2009-10-12T17:50:30.000Z",
            b"2009-10-12T17:50:30Z",
            b"2000-02-29T23:59:60.999999999+14:00",
        ],
        splinters: &[
            b"0",
            b"9",
            b"99",
            b"00",
            b"-",
            b"+",
            b":",
            b".",
            b" ",
            b"T",
            b"Z",
            b"Feb",
            b"31",
            b"9999",
            b"99999999999999999999",
            b"\xff",
            b"\xc3\xa9",
            b"\0",
            b",",
            b"GMT",
        ],
    },
    Trial {
        name: "checksum",
        run: checksums,
        begin: &[b"", b"a", b"123456789", b"The quick brown fox jumps over the lazy dog", b"AAAAAA==", b"AAAAAAAAAAA="],
        splinters: &[b"\0", b"\0\0\0\0\0\0\0\0", b"\xff\xff\xff\xff", b"=", b"AAAA", b"\n", b"\x80"],
    },
    Trial {
        name: "no_proxy",
        run: no_proxy,
        begin: &[b"localhost,127.0.0.0/8,.example.com:443 [::1]:80,fd00::/8,*", b"*.a.b., c", b"10.0.0.1"],
        splinters: &[
            b",",
            b"*",
            b".",
            b":",
            b"/",
            b"[",
            b"]",
            b"::",
            b"/0",
            b"/129",
            b"/-1",
            b":65536",
            b" ",
            b"\xc3\xa9",
            b"%",
        ],
    },
];

/// Inputs that once broke a reader, by the name of their trial.
const MET: [(&str, &[u8]); 2] = [
    ("head", b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n"),
    ("head", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
];

fn head(bytes: &[u8]) {
    for is_head in [false, true] {
        let Ok(Some((len, head))) = parse_head(bytes, is_head) else { continue };
        assert!(len <= bytes.len() && head.raw[..] == bytes[..len]);
        assert!(head.raw.iter().filter(|b| **b == b':').count() <= len && MAX_HEADERS < 100);
        assert!(head.retry_after_s.is_none_or(|s| s.is_finite() && s >= 0.0));
        assert!(!is_head || head.length == Length::Fixed(0));
        assert!(!(head.keep_alive && head.length == Length::UntilClose));
        if let Some(range) = head.content_range.and_then(|r| r.range) {
            assert!(range.0 <= range.1);
        }
        // What was complete stays so, and the same, whatever follows.
        let longer = [bytes, b"HTTP/1.1 500 x\r\nContent-Length: 9\r\n\r\n"].concat();
        let again = parse_head(&longer, is_head);
        assert!(matches!(again, Ok(Some((n, again))) if n == len && again.length == head.length));
        // And it was not complete before its last byte.
        assert!(!matches!(parse_head(&bytes[..len - 1], is_head), Ok(Some(_))));
    }
}

fn date(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for seconds in [parse_http_date(text), parse_iso8601(text)].into_iter().flatten() {
        assert!(seconds.unsigned_abs() < 1 << 40, "{text:?} is {seconds}");
    }
}

fn checksums(bytes: &[u8]) {
    let cut = bytes.first().map_or(0, |b| usize::from(*b) % (bytes.len() + 1));
    let (first, second) = bytes.split_at(cut);
    for algorithm in [Algorithm::Crc64Nvme, Algorithm::Crc32c, Algorithm::Crc32] {
        let of = |data| checksum::checksum(algorithm, data);
        assert_eq!(checksum::combine(algorithm, of(first), of(second), second.len() as u64), of(bytes));
        assert_eq!(checksum::decode(algorithm, &checksum::encode(algorithm, of(bytes))), Some(of(bytes)));
        // Lengths that no memory has.
        let _ = checksum::combine(algorithm, of(first), of(second), u64::MAX);
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Some(value) = checksum::decode(algorithm, text)
        {
            assert_eq!(checksum::encode(algorithm, value), text.trim());
        }
    }
}

fn no_proxy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let proxies = Proxies::new("p".to_owned(), 1, None, text);
    for host in ["localhost", "[::1]", "127.0.0.1", "a.example.com.", text] {
        let _ = proxies.to(host, 443);
    }
}

fn spoil(input: &mut Vec<u8>, splinters: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(12)).min(input.len());
    match random.below(6) {
        0 => drop(input.splice(at..end, random.pick(splinters).iter().copied())),
        1 | 2 => drop(input.splice(at..at, random.pick(splinters).iter().copied())),
        3 => drop(input.drain(at..end)),
        4 if at < input.len() => input[at] ^= 1 << random.below(8),
        _ => {
            let copy = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            drop(input.splice(to..to, copy));
        }
    }
}

fn attempt(trial: &Trial, random: &mut Random) {
    let mut input = random.pick(trial.begin).to_vec();
    for _ in 0..random.below(6) {
        spoil(&mut input, trial.splinters, random);
    }
    let result = std::panic::catch_unwind(|| (trial.run)(&input));
    assert!(result.is_ok(), "{} breaks on b\"{}\"", trial.name, input.escape_ascii());
}

#[test]
fn what_once_broke_does_so_no_more() {
    for (name, input) in MET {
        let trial = TRIALS.iter().find(|trial| trial.name == name).unwrap();
        (trial.run)(input);
    }
}

#[test]
fn spoilt_input_is_survived() {
    let seconds = std::env::var("S3DATASET_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    for trial in &TRIALS {
        let Some(seconds) = seconds else {
            let mut random = Random::new(1);
            (0..20_000).for_each(|_| attempt(trial, &mut random));
            continue;
        };
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let (mut random, until) = (Random::new(seed), Instant::now() + Duration::from_secs(seconds));
        let mut attempts = 0u64;
        while Instant::now() < until {
            (0..1000).for_each(|_| attempt(trial, &mut random));
            attempts += 1000;
        }
        println!("{}: {attempts} inputs from seed {seed}", trial.name);
    }
}
