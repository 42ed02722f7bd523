//! Which requests it goes wrong with.
use super::{Action, Effects};
use crate::store::content::mix;
use crate::store::{lock, read, write};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// The operation of a connection that is being made. Only rules for this very name pick it.
pub const CONNECT: &str = "Connect";

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
        let matches = (call.operation != CONNECT || config.operation == CONNECT)
            && glob(&config.operation, call.operation)
            && glob(&config.bucket, call.bucket)
            && glob(&config.key, call.key);
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

pub fn fingerprint(parts: &[impl AsRef<[u8]>]) -> u64 {
    // FNV-1a with a separator that UTF-8 never has.
    let bytes = parts.iter().flat_map(|part| part.as_ref().iter().copied().chain([0xff]));
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
