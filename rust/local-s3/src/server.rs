//! What all threads share, and the rules that look at it: clock, regions, rates, latency.
use crate::auth::Sender;
use crate::config::{Config, WrongRegion};
use crate::date::Timestamp;
use crate::error::Answer;
use crate::faults::{Effects, Mutation, Outage, Plan, fingerprint, wrong_region};
use crate::operations::directory_buckets::Sessions;
use crate::operations::{Call, Operation, objects};
use crate::request::{Query, Target};
use crate::stats::{Stats, now_s};
use crate::store::content::mix;
use crate::store::{Store, lock, read, write};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// What all threads share.
pub struct Server {
    config: RwLock<Arc<Config>>,
    pub store: Store,
    pub stats: Arc<Stats>,
    pub plan: Plan,
    /// CRC64NVME of synthetic objects by seed and size, as Base64.
    pub synthetic_checksums: Mutex<HashMap<(u64, u64), String>>,
    /// Requests so far, which number them.
    pub requests: AtomicU64,
    /// Makes request ids of two servers differ.
    pub salt: u64,
    /// Of directory buckets.
    pub sessions: Sessions,
    rates: Mutex<HashMap<u64, Bucket>>,
    outages: mpsc::UnboundedSender<Outage>,
    /// A connection falls silent, or ends, when it changes.
    pub presence: watch::Sender<Presence>,
}

/// Whether connections are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Here,
    /// Those that exist stay and get nothing.
    Silent,
}

/// A token bucket: requests left and when that was true.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Server {
    /// A server and the outages that it will ask its listener for.
    pub fn new(config: Config) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<Outage>)> {
        let (outages, requested) = mpsc::unbounded_channel();
        let server = Self {
            stats: Arc::new(Stats::new(config.log_capacity)),
            plan: Plan::default(),
            store: Store::new(&config)?,
            synthetic_checksums: Mutex::default(),
            requests: AtomicU64::new(0),
            salt: mix((now_s() * 1e3) as u64),
            sessions: Sessions::default(),
            rates: Mutex::default(),
            outages,
            presence: watch::Sender::new(Presence::Here),
            config: RwLock::new(Arc::new(config.clone())),
        };
        for rule in config.faults {
            server.plan.add(rule);
        }
        Ok((Arc::new(server), requested))
    }

    pub fn config(&self) -> Arc<Config> {
        read(&self.config).clone()
    }

    pub fn set_config(&self, config: Config) {
        *write(&self.config) = Arc::new(config);
    }

    /// The server's clock.
    pub fn now(&self, effects: &Effects) -> Timestamp {
        Timestamp::now().shifted(self.config().clock_offset_s + effects.skew_s)
    }

    pub fn outage(&self, outage: Outage) {
        // The receiver lives as long as the server does.
        let _ = self.outages.send(outage);
    }

    pub fn check_region(&self, call: &Call<'_>) -> Answer<()> {
        let behaviour = call.config.wrong_region;
        let Sender::Known(signed) = call.sender else { return Ok(()) };
        if behaviour == WrongRegion::Accept || call.target.bucket.is_empty() {
            return Ok(());
        }
        let Some(bucket) = self.store.find(&call.target.bucket) else { return Ok(()) };
        if bucket.region == signed.region {
            return Ok(());
        }
        let host = call.request.header("host").unwrap_or("");
        Err(match behaviour {
            WrongRegion::Temporary => {
                // The name of the right region is where the request is served.
                if host.contains(&format!(".{}.", bucket.region)) {
                    return Ok(());
                }
                let port = host.rsplit_once(':').map_or(String::new(), |(_, port)| format!(":{port}"));
                let scheme = if call.config.tls { "https" } else { "http" };
                let name = format!("{}.s3.{}.localhost", bucket.name, bucket.region);
                let path = call.request.path();
                let path = match call.target.virtual_host {
                    true => path,
                    false => path.strip_prefix(&format!("/{}", bucket.name)).unwrap_or(path),
                };
                wrong_region(307, &bucket.region).header("Location", format!("{scheme}://{name}{port}{path}"))
            }
            WrongRegion::Permanent => wrong_region(301, &bucket.region).with("Bucket", &bucket.name),
            _ => wrong_region(400, &bucket.region),
        }
        .into())
    }

    /// Whether a prefix has served as many requests as it may in this second.
    pub fn is_over_rate(&self, config: &Config, operation: Operation, target: &Target, query: &Query) -> bool {
        let rate = if operation.writes() { config.traffic.writes_per_s } else { config.traffic.reads_per_s };
        if rate <= 0.0 {
            return false;
        }
        let name = if target.key.is_empty() { query.get("prefix").unwrap_or("") } else { &target.key };
        let prefix = name.rsplit_once('/').map_or("", |(prefix, _)| prefix);
        let kind = if operation.writes() { "w" } else { "r" };
        self.is_over(&[&target.bucket, prefix, kind], rate)
    }

    /// Whether a key was written within this second.
    pub fn is_over_key_rate(&self, target: &Target) -> bool {
        self.is_over(&[&target.bucket, &target.key, "key"], 1.0)
    }

    /// Whether more came than `rate` a second; a second's worth may come at once.
    fn is_over(&self, what: &[&str], rate: f64) -> bool {
        let mut rates = lock(&self.rates);
        let now = Instant::now();
        let bucket = rates.entry(fingerprint(what)).or_insert_with(|| Bucket { tokens: rate.max(1.0), at: now });
        bucket.tokens = (bucket.tokens + (now - bucket.at).as_secs_f64() * rate).min(rate.max(1.0));
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return true;
        }
        bucket.tokens -= 1.0;
        false
    }

    /// Time from the end of a request to the first byte of its answer.
    pub fn latency(&self, config: &Config, number: u64) -> Duration {
        let traffic = &config.traffic;
        let mut latency_s = traffic.latency_s;
        let chance = |salt: u64| mix(number ^ salt << 32) as f64 / u64::MAX as f64;
        if traffic.tail_probability > 0.0 && chance(1) < traffic.tail_probability {
            let stretch = match traffic.tail_exponent {
                exponent if exponent > 0.0 => (1.0 - chance(2)).max(1e-9).powf(-1.0 / exponent),
                _ => 1.0,
            };
            latency_s += traffic.tail_latency_s * stretch;
        }
        Duration::try_from_secs_f64(latency_s).unwrap_or_default()
    }

    pub async fn mutate(&self, mutation: &Mutation, target: &Target, now: Timestamp) -> Answer<()> {
        let bucket = self.store.bucket(&target.bucket)?;
        match mutation {
            Mutation::Delete => {
                bucket.delete(&target.key, None, |_| Ok(()))?;
            }
            Mutation::Replace { size_bytes } => {
                if let Some(object) = bucket.get(&target.key) {
                    let object = objects::replacement(&object, *size_bytes, now).await?;
                    bucket.put(&target.key, object, |_| Ok(()))?;
                }
            }
        }
        Ok(())
    }
}
