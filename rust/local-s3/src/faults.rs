//! The fault plan: rules that say which requests go wrong, and how.
//!
//! A rule matches requests by operation, bucket and key; of those it picks some by their number or by chance; and it
//! has one action. Every rule that picks a request adds its action to the request's `Effects`; the server looks at
//! these at the places where they matter. A new kind of fault is a variant of `Action`, an arm in `Action::apply`
//! and, unless an existing effect does, a field of `Effects`.
use crate::error::S3Error;
use crate::store::content::mix;
use crate::store::{lock, read, write};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

/// One rule, as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Glob over operation names such as `GetObject`, or `*`.
    #[serde(default = "any")]
    pub operation: String,
    #[serde(default = "any")]
    pub bucket: String,
    #[serde(default = "any")]
    pub key: String,
    /// Let the first so many matching requests pass.
    #[serde(default)]
    pub after: u64,
    /// Then pick every so manieth.
    #[serde(default = "first")]
    pub every: u64,
    /// Stop after so many; None never stops.
    #[serde(default)]
    pub times: Option<u64>,
    /// Of those that would be picked, the share that is.
    #[serde(default = "always")]
    pub probability: f64,
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub scope: Scope,
    pub action: Action,
}

fn any() -> String {
    "*".to_owned()
}

fn first() -> u64 {
    1
}

fn always() -> f64 {
    1.0
}

/// What is counted together for `after`, `every` and `times`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All matching requests.
    #[default]
    All,
    /// The requests of one key.
    Key,
    /// Attempts of one request: the same operation, key, range and part.
    Request,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// RST.
    #[default]
    Reset,
    /// FIN.
    Close,
    /// Silence, until the client gives up.
    Stall,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Refuse with a status. The request's body is read first.
    Status {
        status: u16,
        code: Option<String>,
        message: Option<String>,
        retry_after_s: Option<f64>,
        /// Answer without the XML body.
        #[serde(default)]
        empty: bool,
        /// So many bytes of body instead of the XML.
        #[serde(default)]
        body_bytes: u64,
        /// Close the connection afterwards.
        #[serde(default)]
        close: bool,
    },
    /// Refuse when so many bytes of the request's body have come, and close without reading the rest.
    Early {
        status: u16,
        code: Option<String>,
        #[serde(default)]
        at: u64,
    },
    /// RST: at once, or at byte `at` of the body that the request or its answer has.
    Reset {
        at: Option<u64>,
    },
    /// FIN without an answer.
    Close,
    /// The body ends early: FIN after `at` bytes.
    Truncate {
        at: u64,
    },
    /// Nothing more comes from byte `at` on (None: no answer at all), for `duration_s` or for good.
    Stall {
        at: Option<u64>,
        duration_s: Option<f64>,
    },
    Delay {
        delay_s: f64,
    },
    /// The connection carries so many bytes a second for this body.
    Slow {
        bytes_per_s: f64,
    },
    /// After this answer the object has other bytes.
    Replace {
        size_bytes: Option<u64>,
        #[serde(default)]
        before: bool,
    },
    /// After this answer the object is gone.
    Delete {
        #[serde(default)]
        before: bool,
    },
    /// One byte of the body is changed on its way.
    Corrupt {
        at: u64,
        #[serde(default = "all_bits")]
        xor: u8,
    },
    /// The operation is done, its answer never comes.
    Lost {
        #[serde(default)]
        ending: Ending,
    },
    /// The operation is done, the answer is an error.
    LostStatus {
        status: u16,
        code: Option<String>,
    },
    /// The head comes one byte at a time.
    SplitHead,
    /// The body comes chunked, without a Content-Length.
    Chunked,
    /// Content-Length is wrong by `delta`.
    WrongLength {
        delta: i64,
    },
    /// The server's clock is off by so much for this request.
    Skew {
        seconds: i64,
    },
    /// The bucket is said to be in another region: 301, 307 or 400.
    Region {
        status: u16,
        region: String,
        #[serde(default)]
        location: Option<String>,
    },
    /// 200, white space for `after_s`, then an error (CopyObject, UploadPartCopy, CompleteMultipartUpload).
    ErrorIn200 {
        code: Option<String>,
        #[serde(default)]
        after_s: f64,
    },
    /// 200, white space for `delay_s`, then the result.
    SlowResult {
        delay_s: f64,
    },
    IgnoreConditions,
    /// Refuse checksum headers as stores do that do not know them.
    RefuseChecksums,
    /// LIST without order.
    UnorderedListing,
    /// LIST repeats the last key of the page before.
    DuplicateListing,
    /// LIST answers a page without keys that is not the last.
    EmptyListing,
    /// LIST never ends: the last page says that there is another.
    EndlessListing,
    /// These bytes are the answer, head and all; then FIN.
    Raw {
        data: String,
    },
    /// Headers without end.
    EndlessHead,
    /// Close the connection after a complete answer, without having said so.
    CloseAfter,
    /// No connection is accepted for so long, and those that exist are reset.
    Outage {
        duration_s: f64,
    },
}

fn all_bits() -> u8 {
    0xff
}

/// A change of the stored object that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    Replace { size_bytes: Option<u64> },
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingFault {
    Unordered,
    Duplicate,
    Empty,
    Endless,
}

/// An answer in place of the operation's.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub error: S3Error,
    pub empty: bool,
    pub body_bytes: u64,
    /// Refuse at this byte of the request's body, without reading on.
    pub early_at: Option<u64>,
}

/// All that goes wrong with one request.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    pub delay: Duration,
    pub refusal: Option<Refusal>,
    /// Ends the connection before the operation is done.
    pub ending: Option<Ending>,
    /// Ends it within a body.
    pub cut: Option<(u64, Ending)>,
    /// For a stall that ends.
    pub stall: Option<Duration>,
    pub bytes_per_s: Option<f64>,
    pub before: Option<Mutation>,
    pub after: Option<Mutation>,
    pub corrupt: Vec<(u64, u8)>,
    pub lost: Option<Ending>,
    pub lost_refusal: Option<S3Error>,
    pub split_head: bool,
    pub chunked: bool,
    pub length_delta: i64,
    pub skew_s: i64,
    pub error_in_200: Option<S3Error>,
    pub white_space: Duration,
    pub ignore_conditions: bool,
    pub refuse_checksums: bool,
    pub listing: Option<ListingFault>,
    pub raw: Option<String>,
    pub endless_head: bool,
    pub close_after: bool,
    pub outage: Option<Duration>,
    /// Names of the actions, for the log.
    pub names: Vec<&'static str>,
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

fn refusal(status: u16, code: Option<&String>, message: Option<&String>) -> S3Error {
    let usual = match status {
        400 => "InvalidRequest",
        403 => "AccessDenied",
        404 => "NoSuchKey",
        408 => "RequestTimeout",
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        429 => "TooManyRequests",
        500 => "InternalError",
        501 => "NotImplemented",
        503 => "SlowDown",
        _ => "Fault",
    };
    let code = code.map_or(usual.to_owned(), Clone::clone);
    let usual = match code.as_str() {
        "SlowDown" => "Please reduce your request rate.",
        "AccessDenied" => "Access Denied",
        "ExpiredToken" => "The provided token has expired.",
        "InternalError" => "We encountered an internal error. Please try again.",
        _ => "This answer comes from the fault plan.",
    };
    S3Error::new(status, code, message.map_or(usual.to_owned(), Clone::clone))
}

impl Action {
    fn apply(&self, effects: &mut Effects) -> &'static str {
        match self {
            Self::Status { status, code, message, retry_after_s, empty, body_bytes, close } => {
                let mut error = refusal(*status, code.as_ref(), message.as_ref());
                error.close = *close;
                if let Some(delay_s) = retry_after_s {
                    error.headers.push(("Retry-After", delay_s.to_string()));
                }
                effects.refusal = Some(Refusal { error, empty: *empty, body_bytes: *body_bytes, early_at: None });
                "status"
            }
            Self::Early { status, code, at } => {
                let mut error = refusal(*status, code.as_ref(), None);
                error.close = true;
                effects.refusal = Some(Refusal { error, empty: false, body_bytes: 0, early_at: Some(*at) });
                "early"
            }
            Self::Reset { at } => {
                match at {
                    Some(at) => effects.cut = Some((*at, Ending::Reset)),
                    None => effects.ending = Some(Ending::Reset),
                }
                "reset"
            }
            Self::Close => {
                effects.ending = Some(Ending::Close);
                "close"
            }
            Self::Truncate { at } => {
                effects.cut = Some((*at, Ending::Close));
                "truncate"
            }
            Self::Stall { at, duration_s } => {
                match at {
                    Some(at) => effects.cut = Some((*at, Ending::Stall)),
                    None => effects.ending = Some(Ending::Stall),
                }
                effects.stall = duration_s.map(seconds);
                "stall"
            }
            Self::Delay { delay_s } => {
                effects.delay += seconds(*delay_s);
                "delay"
            }
            Self::Slow { bytes_per_s } => {
                effects.bytes_per_s = Some(*bytes_per_s);
                "slow"
            }
            Self::Replace { size_bytes, before } => {
                let mutation = Some(Mutation::Replace { size_bytes: *size_bytes });
                if *before {
                    effects.before = mutation
                } else {
                    effects.after = mutation
                }
                "replace"
            }
            Self::Delete { before } => {
                if *before {
                    effects.before = Some(Mutation::Delete)
                } else {
                    effects.after = Some(Mutation::Delete)
                }
                "delete"
            }
            Self::Corrupt { at, xor } => {
                effects.corrupt.push((*at, *xor));
                "corrupt"
            }
            Self::Lost { ending } => {
                effects.lost = Some(*ending);
                "lost"
            }
            Self::LostStatus { status, code } => {
                effects.lost_refusal = Some(refusal(*status, code.as_ref(), None));
                "lost_status"
            }
            Self::SplitHead => {
                effects.split_head = true;
                "split_head"
            }
            Self::Chunked => {
                effects.chunked = true;
                "chunked"
            }
            Self::WrongLength { delta } => {
                effects.length_delta = *delta;
                "wrong_length"
            }
            Self::Skew { seconds } => {
                effects.skew_s += seconds;
                "skew"
            }
            Self::Region { status, region, location } => {
                let mut error = wrong_region(*status, region);
                error.headers.extend(location.clone().map(|location| ("Location", location)));
                effects.refusal = Some(Refusal { error, empty: false, body_bytes: 0, early_at: None });
                "region"
            }
            Self::ErrorIn200 { code, after_s } => {
                effects.error_in_200 = Some(refusal(500, code.as_ref(), None));
                effects.white_space = seconds(*after_s);
                "error_in_200"
            }
            Self::SlowResult { delay_s } => {
                effects.white_space = seconds(*delay_s);
                "slow_result"
            }
            Self::IgnoreConditions => {
                effects.ignore_conditions = true;
                "ignore_conditions"
            }
            Self::RefuseChecksums => {
                effects.refuse_checksums = true;
                "refuse_checksums"
            }
            Self::UnorderedListing => {
                effects.listing = Some(ListingFault::Unordered);
                "unordered_listing"
            }
            Self::DuplicateListing => {
                effects.listing = Some(ListingFault::Duplicate);
                "duplicate_listing"
            }
            Self::EmptyListing => {
                effects.listing = Some(ListingFault::Empty);
                "empty_listing"
            }
            Self::EndlessListing => {
                effects.listing = Some(ListingFault::Endless);
                "endless_listing"
            }
            Self::Raw { data } => {
                effects.raw = Some(data.clone());
                "raw"
            }
            Self::EndlessHead => {
                effects.endless_head = true;
                "endless_head"
            }
            Self::CloseAfter => {
                effects.close_after = true;
                "close_after"
            }
            Self::Outage { duration_s } => {
                effects.outage = Some(seconds(*duration_s));
                effects.ending = Some(Ending::Reset);
                "outage"
            }
        }
    }
}

/// What S3 answers to a request for a bucket of another region.
pub fn wrong_region(status: u16, region: &str) -> S3Error {
    let error = match status {
        400 => {
            let message = format!("The authorization header is malformed; the region is wrong; expecting '{region}'");
            S3Error::new(400, "AuthorizationHeaderMalformed", message)
        }
        307 => {
            let message = "Please re-send this request to the specified temporary endpoint. Continue to use the \
                           original request endpoint for future requests.";
            S3Error::new(307, "TemporaryRedirect", message)
        }
        status => {
            let message = "The bucket you are attempting to access must be addressed using the specified endpoint. \
                           Please send all future requests to this endpoint.";
            S3Error::new(status, "PermanentRedirect", message)
        }
    };
    error.with("Region", region).header("x-amz-bucket-region", region)
}

#[derive(Default)]
struct Count {
    seen: u64,
    picked: u64,
}

struct Rule {
    id: u64,
    config: RuleConfig,
    counts: Mutex<HashMap<u64, Count>>,
    picked: AtomicU64,
}

/// What a rule looks at.
pub struct Call<'a> {
    pub operation: &'a str,
    pub bucket: &'a str,
    pub key: &'a str,
    /// Same for every attempt of one request.
    pub identity: u64,
}

impl Rule {
    fn picks(&self, call: &Call<'_>) -> bool {
        let config = &self.config;
        let matches =
            glob(&config.operation, call.operation) && glob(&config.bucket, call.bucket) && glob(&config.key, call.key);
        if !matches {
            return false;
        }
        let group = match config.scope {
            Scope::All => 0,
            Scope::Key => fingerprint(&[call.bucket, call.key]),
            Scope::Request => call.identity,
        };
        let mut counts = lock(&self.counts);
        let count = counts.entry(group).or_default();
        let number = count.seen;
        count.seen += 1;
        let in_turn = number >= config.after && (number - config.after).is_multiple_of(config.every.max(1));
        let chance = mix(config.seed ^ mix(group) ^ mix(number)) as f64 / u64::MAX as f64;
        let picked = in_turn
            && config.times.is_none_or(|times| count.picked < times)
            && (config.probability >= 1.0 || chance < config.probability);
        count.picked += u64::from(picked);
        self.picked.fetch_add(u64::from(picked), Ordering::Relaxed);
        picked
    }
}

/// The rules in force.
#[derive(Default)]
pub struct Plan {
    rules: RwLock<Vec<Arc<Rule>>>,
    active: AtomicBool,
    next_id: AtomicU64,
}

/// A rule as the control API shows it.
#[derive(Serialize)]
pub struct RuleReport {
    pub id: u64,
    pub picked: u64,
    pub rule: RuleConfig,
}

impl Plan {
    pub fn add(&self, config: RuleConfig) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let rule = Rule { id, config, counts: Mutex::default(), picked: AtomicU64::new(0) };
        write(&self.rules).push(Arc::new(rule));
        self.active.store(true, Ordering::Release);
        id
    }

    /// Removes one rule, or all of them.
    pub fn remove(&self, id: Option<u64>) {
        let mut rules = write(&self.rules);
        rules.retain(|rule| id.is_some_and(|id| rule.id != id));
        self.active.store(!rules.is_empty(), Ordering::Release);
    }

    pub fn report(&self) -> Vec<RuleReport> {
        let report = |rule: &Arc<Rule>| RuleReport {
            id: rule.id,
            picked: rule.picked.load(Ordering::Relaxed),
            rule: rule.config.clone(),
        };
        read(&self.rules).iter().map(report).collect()
    }

    pub fn effects(&self, call: &Call<'_>) -> Effects {
        let mut effects = Effects::default();
        if self.active.load(Ordering::Acquire) {
            for rule in read(&self.rules).iter().filter(|rule| rule.picks(call)) {
                let name = rule.config.action.apply(&mut effects);
                effects.names.push(name);
            }
        }
        effects
    }
}

pub fn fingerprint(parts: &[&str]) -> u64 {
    // FNV-1a with a separator that UTF-8 never has.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Whether `text` matches a pattern of literals, `?` (one character) and `*` (any run, slashes included).
pub fn glob(pattern: &str, text: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rule: &str) -> Plan {
        let plan = Plan::default();
        plan.add(serde_json::from_str(rule).unwrap());
        plan
    }

    fn picks(plan: &Plan, key: &str, count: u64) -> Vec<u64> {
        let call = Call { operation: "GetObject", bucket: "b", key, identity: 1 };
        (0..count).filter(|_| !plan.effects(&call).names.is_empty()).collect()
    }

    #[test]
    fn globs() {
        for (pattern, text) in [("*", ""), ("a*c", "abcbc"), ("?", "é"), ("*/x", "a/b/x"), ("", "")] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abcb"), ("?", ""), ("a", "ab"), ("Get*", "PutObject")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn requests_are_picked_by_number() {
        let plan = plan(r#"{"after": 2, "every": 3, "times": 2, "action": {"kind": "close"}}"#);
        assert_eq!(picks(&plan, "k", 20), [2, 5]);
    }

    #[test]
    fn requests_are_counted_by_key() {
        let plan = plan(r#"{"times": 1, "scope": "key", "action": {"kind": "close"}}"#);
        assert_eq!(picks(&plan, "a", 3), [0]);
        assert_eq!(picks(&plan, "b", 3), [0]);
    }

    #[test]
    fn chance_is_near_its_probability_and_repeats() {
        let rule = r#"{"probability": 0.25, "seed": 5, "action": {"kind": "close"}}"#;
        let picked = picks(&plan(rule), "k", 4000);
        assert!((900..1100).contains(&picked.len()), "{}", picked.len());
        assert_eq!(picked, picks(&plan(rule), "k", 4000));
    }

    #[test]
    fn unknown_actions_and_fields_are_refused() {
        for rule in [r#"{"action": {"kind": "explode"}}"#, r#"{"keys": "x", "action": {"kind": "close"}}"#] {
            assert!(serde_json::from_str::<RuleConfig>(rule).is_err(), "{rule}");
        }
    }
}
