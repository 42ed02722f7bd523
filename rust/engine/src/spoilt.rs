//! The inputs of `trials`, spoilt at random: readers refuse them or take them, and never panic, hang or keep more than came.
//!
//! `make fuzz SECONDS=60` goes on for so long, from another seed each time; inputs that once broke something are in `MET`.
use crate::trials::{self, TRIALS, Trial};
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

/// Inputs that once broke a reader, by the name of their trial.
const MET: [(&str, &[u8]); 3] = [
    ("head", b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n"),
    ("head", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
    (
        "answers",
        b"\0\0\0HTTP/1.1 206 x\r\nContent-Range: bytes 0-18446744073709551615/*\r\nContent-Length: 5\r\n\r\nhello",
    ),
];

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
        trials::run(name, input);
    }
}

#[test]
fn spoilt_input_is_survived() {
    let seconds = std::env::var("S3DATASET_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    for trial in &TRIALS {
        let Some(seconds) = seconds else {
            let mut random = Random::new(1);
            (0..trial.rounds).for_each(|_| attempt(trial, &mut random));
            continue;
        };
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let (mut random, until) = (Random::new(seed), Instant::now() + Duration::from_secs(seconds));
        let mut attempts = 0u64;
        while Instant::now() < until {
            (0..100).for_each(|_| attempt(trial, &mut random));
            attempts += 100;
        }
        println!("{}: {attempts} inputs from seed {seed}", trial.name);
    }
}
