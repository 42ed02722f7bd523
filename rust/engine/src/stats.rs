//! Counters of one client, and the request log. Everything is relaxed atomics: no request waits for a statistic.
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

const BUCKETS: usize = 24;

/// Durations in powers of two from 61 us on.
#[derive(Default)]
pub struct Histogram([AtomicU64; BUCKETS]);

impl Histogram {
    pub fn add(&self, duration: Duration) {
        let units = (duration.as_micros() as u64 / 61).max(1);
        self.0[(units.ilog2() as usize).min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// (upper bound in seconds, count) of each step that has any.
    pub fn read(&self) -> Vec<(f64, u64)> {
        let counts = self.0.iter().map(|n| n.load(Relaxed));
        counts.enumerate().filter(|(_, n)| *n > 0).map(|(i, n)| (61e-6 * (2u64 << i) as f64, n)).collect()
    }
}

#[derive(Default)]
pub struct Stats {
    pub requests: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub retries: AtomicU64,
    pub throttles: AtomicU64,
    /// Whole objects that were compared with the checksum stored, and those for which there was none.
    pub reads_verified: AtomicU64,
    pub reads_unverified: AtomicU64,
    pub hedges: AtomicU64,
    /// Uploads that may have been created by requests whose answer was lost.
    pub uploads_in_doubt: AtomicU64,
    pub connections_opened: AtomicU64,
    pub connections_reused: AtomicU64,
    pub connections_open: AtomicU64,
    pub network_wait_us: AtomicU64,
    pub ttfb: Histogram,
    pub latency: Histogram,
    causes: Mutex<BTreeMap<String, u64>>,
    operations: [AtomicU64; OPERATIONS.len()],
}

/// Every operation, by the service's own name.
pub const OPERATIONS: [&str; 15] = [
    "GetObject",
    "HeadObject",
    "HeadBucket",
    "ListObjectsV2",
    "ListMultipartUploads",
    "PutObject",
    "UploadPart",
    "UploadPartCopy",
    "CreateMultipartUpload",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "DeleteObject",
    "DeleteObjects",
    "CopyObject",
    "CreateSession",
];

impl Stats {
    pub fn count(&self, operation: &'static str) {
        self.requests.fetch_add(1, Relaxed);
        if let Some(i) = OPERATIONS.iter().position(|o| std::ptr::eq(*o, operation) || *o == operation) {
            self.operations[i].fetch_add(1, Relaxed);
        }
    }

    pub fn retry(&self, cause: String) {
        self.retries.fetch_add(1, Relaxed);
        let mut causes = self.causes.lock().unwrap_or_else(|e| e.into_inner());
        // Codes come from the server: it may not fill our memory with them.
        let cause = if causes.len() < 64 || causes.contains_key(&cause) { cause } else { "other".to_owned() };
        *causes.entry(cause).or_default() += 1;
    }

    pub fn causes(&self) -> BTreeMap<String, u64> {
        self.causes.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub fn operations(&self) -> Vec<(&'static str, u64)> {
        let counts = OPERATIONS.iter().zip(&self.operations);
        counts.map(|(o, n)| (*o, n.load(Relaxed))).filter(|(_, n)| *n > 0).collect()
    }
}

/// One attempt of one request, for the request log.
#[derive(Clone, Debug)]
pub struct Record {
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
    pub range: String,
    pub attempt: u32,
    pub status: u16,
    pub request_id: String,
    pub ttfb_s: f64,
    pub duration_s: f64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub error: String,
}

const LOG_LIMIT: usize = 65536;

/// A bounded log that a Python thread drains; the oldest records go first when nobody does.
#[derive(Default)]
pub struct RequestLog {
    enabled: AtomicBool,
    records: Mutex<VecDeque<Record>>,
    filled: Condvar,
}

impl RequestLog {
    pub fn enable(&self, on: bool) {
        self.enabled.store(on, Relaxed);
    }

    pub fn enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    pub fn push(&self, record: Record) {
        let mut records = self.records.lock().unwrap_or_else(|e| e.into_inner());
        if records.len() >= LOG_LIMIT {
            records.pop_front();
        }
        records.push_back(record);
        self.filled.notify_one();
    }

    /// What is there, or what comes within the time given.
    pub fn drain(&self, timeout: Duration) -> Vec<Record> {
        let deadline = Instant::now() + timeout;
        let mut records = self.records.lock().unwrap_or_else(|e| e.into_inner());
        while records.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            records = self.filled.wait_timeout(records, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        records.drain(..).collect()
    }
}
