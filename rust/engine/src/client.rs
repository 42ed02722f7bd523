//! What requests need to know of their endpoint: settings, credentials, where a bucket is.
use crate::attempt::Quota;
use crate::budget::Budget;
use crate::hedge::Hedges;
use crate::pace::Pace;
use crate::proxy::Proxies;
use crate::session::Sessions;
use crate::sign::Credentials;
use crate::stats::Stats;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::{Duration, Instant};

/// Settings of a client, fixed when it is made.
#[derive(Clone, Debug)]
pub struct Settings {
    pub unsigned: bool,
    pub user_agent: String,
    pub part_size: usize,
    pub max_attempts: u32,
    pub max_connections: usize,
    pub large_in_flight: usize,
    pub connect_timeout: Duration,
    /// None: 10 s, and 2 s (doubling) for GETs of known size under 512 KiB.
    pub first_byte_timeout: Option<Duration>,
    pub stall_timeout: Duration,
    pub retry_max_elapsed: Duration,
    /// Compare whole objects that come with one answer with the checksum stored.
    pub verify_reads: bool,
    /// The same for what makes an object: what it holds may be nowhere else.
    pub save_max_elapsed: Duration,
    /// Sent with every request; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Sent with what reads or writes an object, and nothing else: the key that it is encrypted with.
    pub object_headers: SecretHeaders,
}

/// Headers whose values are nobody's business.
#[derive(Clone, Default)]
pub struct SecretHeaders(pub Vec<(String, String)>);

impl std::fmt::Debug for SecretHeaders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Where a bucket is reached. The region may be corrected by what the service answers.
pub struct Route {
    pub bucket: String,
    pub tls: bool,
    pub path_prefix: String,
    pub service: String,
    host: String,
    port: u16,
    place: RwLock<Arc<Place>>,
    /// Seconds that the endpoint's clock is ahead of ours; asked for only after it complained.
    pub clock_offset_s: AtomicI64,
    pub reads: Pace,
    pub writes: Pace,
    /// Of a directory bucket, whose requests are signed with keys of its own.
    pub sessions: Option<Sessions>,
}

/// A route's variable part.
#[derive(Debug)]
pub struct Place {
    pub region: String,
    pub host: String,
    /// Host header: with the port where it is not the scheme's own.
    pub authority: String,
    pub port: u16,
}

impl Route {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        bucket: String,
        tls: bool,
        host: String,
        port: Option<u16>,
        path_prefix: String,
        region: String,
        service: String,
    ) -> Route {
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let place = RwLock::new(Arc::new(Self::at(&host, port, tls, &region)));
        Route {
            bucket,
            tls,
            path_prefix,
            service,
            host,
            port,
            place,
            clock_offset_s: AtomicI64::new(0),
            reads: Pace::default(),
            writes: Pace::default(),
            sessions: None,
        }
    }

    /// `headers` go with CreateSession.
    pub fn with_sessions(self, headers: Vec<(String, String)>) -> Route {
        Route { sessions: Some(Sessions::new(headers)), ..self }
    }

    fn at(host: &str, port: u16, tls: bool, region: &str) -> Place {
        let host = host.replace("{region}", region);
        let plain = port == if tls { 443 } else { 80 };
        let authority = if plain { host.clone() } else { format!("{host}:{port}") };
        Place { region: region.to_owned(), host, authority, port }
    }

    pub fn place(&self) -> Arc<Place> {
        self.place.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Whether that changed anything.
    pub fn correct_region(&self, region: &str) -> bool {
        let valid = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !valid || self.place().region == region {
            return false;
        }
        *self.place.write().unwrap_or_else(|e| e.into_inner()) =
            Arc::new(Self::at(&self.host, self.port, self.tls, region));
        true
    }
}

/// Credentials in use, by version, and whether a request waits for others.
#[derive(Default)]
struct CredentialState {
    current: Option<Arc<Credentials>>,
    version: u64,
    wanted: bool,
    refused: Option<String>,
    /// Why there will never be others.
    kept: Option<String>,
}

pub struct Client {
    pub id: u64,
    pub settings: Settings,
    /// With certificates of the user's; else the engine's, with the system's.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub proxies: Proxies,
    pub budget: Arc<Budget>,
    pub stats: Stats,
    pub in_flight: AtomicUsize,
    pub large_in_flight: AtomicUsize,
    /// Of those in flight, how many have an answer but no room for it.
    pub waiting_for_budget: AtomicUsize,
    /// Of those in flight, how many wait because the service asked for less: they use no connection.
    pub aside: AtomicUsize,
    pub hedges: Hedges,
    pub quota: Quota,
    /// The server refused a checksum header once; it gets none any more.
    pub no_checksums: AtomicBool,
    /// The server refused to be asked for a stored checksum once; it is not asked any more.
    pub no_stored_checksums: AtomicBool,
    pub closed: AtomicBool,
    credentials: Mutex<CredentialState>,
    credentials_changed: Condvar,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Client {
    pub fn new(settings: Settings, tls: Option<Arc<rustls::ClientConfig>>, budget: Arc<Budget>) -> Client {
        Client {
            id: NEXT_ID.fetch_add(1, Relaxed),
            settings,
            tls,
            proxies: Proxies::default(),
            budget,
            stats: Stats::default(),
            in_flight: AtomicUsize::new(0),
            large_in_flight: AtomicUsize::new(0),
            waiting_for_budget: AtomicUsize::new(0),
            aside: AtomicUsize::new(0),
            hedges: Hedges::default(),
            quota: Quota::default(),
            no_checksums: AtomicBool::new(false),
            no_stored_checksums: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            credentials: Mutex::default(),
            credentials_changed: Condvar::new(),
        }
    }

    /// Whether a request that gets no answer may be sent again elsewhere; it is counted then.
    pub fn may_hedge(&self) -> bool {
        self.hedges.take(self.stats.requests.load(Relaxed))
    }

    pub fn with_proxies(self, proxies: Proxies) -> Client {
        Client { proxies, ..self }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, CredentialState> {
        self.credentials.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn credentials(&self) -> (Option<Arc<Credentials>>, u64) {
        let state = self.state();
        (state.current.clone(), state.version)
    }

    pub fn set_credentials(&self, credentials: Credentials) {
        let mut state = self.state();
        state.current = Some(Arc::new(credentials));
        state.version += 1;
        (state.wanted, state.refused) = (false, None);
        self.credentials_changed.notify_all();
    }

    pub fn refuse_credentials(&self, reason: String) {
        let mut state = self.state();
        state.wanted = false;
        state.refused = Some(reason);
        self.credentials_changed.notify_all();
    }

    /// Nobody will bring others: requests that would wait for them fail at once.
    pub fn keep_credentials(&self, reason: String) {
        self.state().kept = Some(reason);
    }

    /// Called by a request whose credentials of that version had expired.
    pub fn want_credentials(&self, version: u64) {
        let mut state = self.state();
        if state.version == version && !state.wanted && state.kept.is_none() {
            (state.wanted, state.refused) = (true, None);
            self.credentials_changed.notify_all();
        }
    }

    /// Whether there are others than those of `version`, or why there will be none.
    pub fn newer_credentials(&self, version: u64) -> Option<Result<(), String>> {
        let state = self.state();
        if state.version != version {
            return Some(Ok(()));
        }
        state.kept.clone().or_else(|| state.refused.clone()).map(Err)
    }

    /// Blocks until a request wants credentials -> the access key that was refused.
    pub fn wait_credentials_wanted(&self, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        while !state.wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.closed.load(Acquire) {
                return None;
            }
            state = self.credentials_changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        Some(state.current.as_ref().map_or_else(String::new, |c| c.access_key.clone()))
    }

    pub fn close(&self) {
        self.closed.store(true, Release);
        let _state = self.state();
        self.credentials_changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_corrected_in_the_host_too() {
        let host = "b.s3.{region}.amazonaws.com".to_owned();
        let route = Route::new("b".into(), true, host, None, String::new(), "us-east-1".into(), "s3".into());
        assert_eq!(route.place().authority, "b.s3.us-east-1.amazonaws.com");
        assert!(route.correct_region("eu-west-1"));
        assert!(!route.correct_region("eu-west-1"));
        assert!(!route.correct_region("evil.example/"));
        assert_eq!((route.place().region.as_str(), route.place().port), ("eu-west-1", 443));
        assert_eq!(route.place().authority, "b.s3.eu-west-1.amazonaws.com");
        let local = Route::new("b".into(), false, "127.0.0.1".into(), Some(9000), "/b".into(), "x".into(), "s3".into());
        assert_eq!(local.place().authority, "127.0.0.1:9000");
    }
}
