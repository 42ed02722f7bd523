//! What a server is told when it starts, as JSON.
use crate::faults::RuleConfig;
use crate::variants::{self, Variant};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The configuration of a server. Every field has a default: `{}` is a server without buckets on an ephemeral port.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// 0 asks the system for a free port.
    pub port: u16,
    /// The control API's own port, always plain HTTP and never subject to faults; 0 asks the system for one.
    pub control_port: u16,
    /// Threads that serve requests; 0 takes half of the cores, because the client under test needs the others.
    pub threads: usize,
    /// The region of buckets that name none.
    pub region: String,
    /// What a request signed for another region than the bucket's gets.
    pub wrong_region: WrongRegion,
    pub credentials: Vec<Credential>,
    /// Whether signatures are checked; without, every signed request passes.
    pub check_signatures: bool,
    /// The account that owns all buckets, for `x-amz-expected-bucket-owner`.
    pub owner: String,
    /// Whether unsigned requests may write to public buckets.
    pub anonymous_writes: bool,
    /// How far a request's date may be from the server's clock.
    pub max_skew_s: i64,
    /// How long the sessions of directory buckets last.
    pub session_lifetime_s: i64,
    /// Added to the server's clock.
    pub clock_offset_s: i64,
    pub buckets: Vec<BucketConfig>,
    /// Objects are kept in memory, or as plain files under this folder.
    pub directory: Option<PathBuf>,
    /// Host names under which `<bucket>.<domain>` is a bucket.
    pub domains: Vec<String>,
    pub etag: EtagKind,
    /// Smallest part but the last that CompleteMultipartUpload accepts.
    pub min_part_bytes: u64,
    /// How long a RestoreObject takes.
    pub restore_s: i64,
    pub traffic: Traffic,
    /// A name, or behaviours; see `variants::read`.
    #[serde(deserialize_with = "variants::read")]
    pub variant: Variant,
    pub faults: Vec<RuleConfig>,
    /// Requests that the log keeps; the oldest are forgotten. 0 keeps none.
    pub log_capacity: usize,
    /// Serve TLS with a certificate made at start.
    pub tls: bool,
    /// Where the CA's certificate is written with `tls`; by default a new file in the temporary folder.
    pub ca_file: Option<PathBuf>,
    /// End when stdin does, so that a dead parent never leaves a server running.
    pub end_with_stdin: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 0,
            control_port: 0,
            threads: 0,
            region: "us-east-1".to_owned(),
            wrong_region: WrongRegion::Accept,
            credentials: vec![Credential::default()],
            check_signatures: true,
            owner: "123456789012".to_owned(),
            anonymous_writes: false,
            max_skew_s: 900,
            session_lifetime_s: 300,
            clock_offset_s: 0,
            buckets: Vec::new(),
            directory: None,
            domains: ["s3.localhost", "localhost"].map(str::to_owned).to_vec(),
            etag: EtagKind::Md5,
            min_part_bytes: 5 << 20,
            restore_s: 0,
            traffic: Traffic::default(),
            variant: Variant::default(),
            faults: Vec::new(),
            log_capacity: 20_000,
            tls: false,
            ca_file: None,
            end_with_stdin: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum WrongRegion {
    /// Serve the request.
    #[default]
    #[serde(rename = "accept")]
    Accept,
    /// 400 AuthorizationHeaderMalformed, which names the region.
    #[serde(rename = "400")]
    Malformed,
    /// 301 PermanentRedirect without a Location, as S3 sends it.
    #[serde(rename = "301")]
    Permanent,
    /// 307 TemporaryRedirect with a Location, as for a bucket made minutes ago.
    #[serde(rename = "307")]
    Temporary,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum EtagKind {
    /// The MD5 of the bytes, as S3 does it without KMS.
    #[default]
    Md5,
    /// Something unique to the content but cheap (MD5 costs 1.5 CPU seconds a GB), as S3 does it with KMS.
    Opaque,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credential {
    pub access_key: String,
    pub secret_key: String,
    /// When set, requests must carry it as `x-amz-security-token`.
    pub session_token: Option<String>,
    /// Answer ExpiredToken.
    pub expired: bool,
}

impl Default for Credential {
    fn default() -> Self {
        Self {
            access_key: "LOCALS3ACCESSKEY".to_owned(),
            secret_key: "local-s3-secret-key".to_owned(),
            session_token: None,
            expired: false,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketConfig {
    pub name: String,
    pub region: Option<String>,
    /// Whether unsigned requests may read.
    pub public: bool,
    /// Uploads are counted and hashed but not kept.
    pub sink: bool,
    /// Requests must say `x-amz-request-payer: requester`.
    pub requester_pays: bool,
    /// Keep what is overwritten and deleted as versions.
    pub versioned: bool,
    pub synthetic: Vec<SyntheticConfig>,
}

/// Objects whose bytes are computed when they are read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticConfig {
    /// A key, or with `count` a pattern with one of `{}` (zero-padded number), `{uuid}` and `{date}`.
    pub key: String,
    #[serde(default = "one")]
    pub count: u64,
    /// Size of each object.
    pub size_bytes: u64,
    /// When greater than `size_bytes`, sizes are spread evenly between the two.
    #[serde(default)]
    pub max_size_bytes: u64,
    #[serde(default)]
    pub seed: u64,
}

fn one() -> u64 {
    1
}

/// How fast the server answers. All zero: as fast as it can.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// From the end of the request to the first byte of the answer.
    pub latency_s: f64,
    /// Share of requests that take `tail_latency_s` more.
    pub tail_probability: f64,
    pub tail_latency_s: f64,
    /// When positive, the extra latency is drawn from a Pareto distribution with this exponent and minimum `tail_latency_s`.
    pub tail_exponent: f64,
    /// Of one connection, each way; 0 is unlimited.
    pub bandwidth_bytes_s: f64,
    /// Requests a second of each prefix (up to the last `/`) before 503 SlowDown; 0 is unlimited.
    pub reads_per_s: f64,
    pub writes_per_s: f64,
    /// Close a connection after so many requests without saying so; 0 never.
    pub max_requests_per_connection: u64,
    /// Close a connection that has been idle so long; 0 never.
    pub idle_timeout_s: f64,
}

/// What `run` reports when the server listens.
#[derive(Clone, Debug, Serialize)]
pub struct ReadyInfo {
    pub endpoint: String,
    pub port: u16,
    pub control: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    /// Path of the CA certificate, with TLS.
    pub ca_bundle: Option<String>,
    pub pid: u32,
}

impl ReadyInfo {
    /// Writes the report as one line of JSON to stdout.
    pub fn print(&self) -> std::io::Result<()> {
        use std::io::Write;
        let line = serde_json::to_string(self).map_err(std::io::Error::other)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }
}
