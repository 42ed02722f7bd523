//! What the server counts, and the log of requests.
use crate::date::Timestamp;
use crate::request::Request;
use crate::store::lock;
use bytes::Bytes;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests whose attempts are told apart; more are counted as first attempts.
const MAX_IDENTITIES: usize = 1 << 20;

#[derive(Default)]
pub struct Stats {
    operations: Mutex<BTreeMap<&'static str, u64>>,
    statuses: Mutex<BTreeMap<u16, u64>>,
    attempts: Mutex<HashMap<u64, u32>>,
    pub requests: AtomicU64,
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
    pub connections: AtomicU64,
    open_connections: AtomicU64,
    max_open_connections: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub faults: AtomicU64,
    log: Mutex<VecDeque<Entry>>,
    next_entry: AtomicU64,
    next_connection: AtomicU64,
    log_capacity: usize,
}

/// The counters at one moment.
#[derive(Serialize)]
pub struct Report {
    pub requests: u64,
    pub operations: BTreeMap<&'static str, u64>,
    pub statuses: BTreeMap<u16, u64>,
    pub in_flight: u64,
    pub max_in_flight: u64,
    pub connections: u64,
    pub open_connections: u64,
    pub max_open_connections: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub faults: u64,
}

/// A request that has been answered, or whose connection ended.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub number: u64,
    pub time_s: f64,
    pub duration_s: f64,
    pub connection: u64,
    pub method: String,
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
    pub query: String,
    pub range: Option<String>,
    /// 0 when no answer was sent.
    pub status: u16,
    /// S3's error code.
    pub code: Option<String>,
    /// 1 for the first request of its kind: operation, key, range and part.
    pub attempt: u32,
    /// Of the body received.
    pub bytes_in: u64,
    /// Of the body sent.
    pub bytes_out: u64,
    pub request_id: String,
    pub faults: Vec<&'static str>,
    /// As they were sent, but for the signature.
    pub headers: SentHead,
}

/// A head kept as it came, and only taken apart when somebody looks at the log.
#[derive(Clone, Debug)]
pub struct SentHead(pub Box<[u8]>);

impl Serialize for SentHead {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let request = Request::parse(Bytes::copy_from_slice(&self.0)).map_err(S::Error::custom)?;
        let visible = |(name, value): (&str, &str)| {
            let name = name.to_ascii_lowercase();
            let value = match (name.as_str(), value.split_once("Signature=")) {
                ("authorization", Some((start, _))) => format!("{start}Signature=..."),
                ("x-amz-security-token" | "x-amz-s3session-token", _) => "...".to_owned(),
                (name, _) if name.ends_with("server-side-encryption-customer-key") => "...".to_owned(),
                _ => value.to_owned(),
            };
            (name, value)
        };
        request.headers().map(visible).collect::<BTreeMap<_, _>>().serialize(serializer)
    }
}

impl Stats {
    pub fn new(log_capacity: usize) -> Self {
        Self { log_capacity, ..Self::default() }
    }

    pub fn logs(&self) -> bool {
        self.log_capacity > 0
    }

    pub fn connection_opened(&self) -> u64 {
        let open = self.open_connections.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_open_connections.fetch_max(open, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.next_connection.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn connection_closed(&self) {
        self.open_connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a request as in flight until `end`; returns which attempt it is.
    pub fn begin(&self, operation: &'static str, identity: u64) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_in_flight.fetch_max(now, Ordering::Relaxed);
        *lock(&self.operations).entry(operation).or_default() += 1;
        if !self.logs() {
            return 1;
        }
        let mut attempts = lock(&self.attempts);
        if attempts.len() >= MAX_IDENTITIES {
            return 1;
        }
        let attempt = attempts.entry(identity).or_default();
        *attempt += 1;
        *attempt
    }

    pub fn end(&self, status: u16) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.statuses).entry(status).or_default() += 1;
    }

    pub fn record(&self, mut entry: Entry) {
        let mut log = lock(&self.log);
        entry.number = self.next_entry.fetch_add(1, Ordering::Relaxed) + 1;
        if log.len() >= self.log_capacity {
            log.pop_front();
        }
        log.push_back(entry);
    }

    /// Entries with a number greater than `after`.
    pub fn entries(&self, after: u64) -> Vec<Entry> {
        lock(&self.log).iter().filter(|entry| entry.number > after).cloned().collect()
    }

    pub fn report(&self) -> Report {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            requests: load(&self.requests),
            operations: lock(&self.operations).clone(),
            statuses: lock(&self.statuses).clone(),
            in_flight: load(&self.in_flight),
            max_in_flight: load(&self.max_in_flight),
            connections: load(&self.connections),
            open_connections: load(&self.open_connections),
            max_open_connections: load(&self.max_open_connections),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            faults: load(&self.faults),
        }
    }

    /// Forgets all but what is under way.
    pub fn reset(&self) {
        for counter in [&self.requests, &self.connections, &self.bytes_in, &self.bytes_out, &self.faults] {
            counter.store(0, Ordering::Relaxed);
        }
        self.max_in_flight.store(self.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
        self.max_open_connections.store(self.open_connections.load(Ordering::Relaxed), Ordering::Relaxed);
        lock(&self.operations).clear();
        lock(&self.statuses).clear();
        lock(&self.attempts).clear();
        lock(&self.log).clear();
    }
}

pub fn now_s() -> f64 {
    let now = Timestamp::now();
    now.seconds as f64 + f64::from(now.millis) / 1e3
}
