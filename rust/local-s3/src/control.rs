//! The API under `/_local/`: what tests ask a server and tell it. Unsigned, loopback only, JSON.
use crate::auth::Sender;
use crate::checksum::hex;
use crate::config::{BucketConfig, Config, Credential, EtagKind, SyntheticConfig, Traffic, WrongRegion};
use crate::connection::Connection;
use crate::error::{Answer, Failure, S3Error};
use crate::faults::{Effects, Outage, RuleConfig};
use crate::incoming::Incoming;
use crate::keep::Place;
use crate::receive::{Expected, receive};
use crate::request::{Query, Request, percent_decode};
use crate::response::{Body, Response};
use crate::server::Server;
use crate::store::content::Content;
use crate::store::listing::After;
use crate::store::lock;
use crate::store::object::{Attributes, Object};
use crate::store::versions_listing::{From, ListedVersion};
use crate::variants::{self, Variant};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

const ROOT: &str = "/_local/";

/// Whether a request is for this API rather than for S3. No bucket can have the name.
pub fn is_for(request: &Request) -> bool {
    request.path().starts_with(ROOT)
}

/// Whether a request comes from a program rather than from a web page that a browser on this machine shows.
fn is_trusted(request: &Request) -> bool {
    let host = request.header("host").unwrap_or("");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    request.header("origin").is_none() && matches!(name, "127.0.0.1" | "localhost" | "[::1]")
}

/// Answers a request; whether the connection can go on.
pub async fn serve(server: &Server, connection: &mut Connection, request: &Request) -> io::Result<bool> {
    let effects = Effects::default();
    let answer = {
        let mut incoming = match Incoming::of(connection, request, &effects, 0.0) {
            Ok(incoming) => incoming,
            Err(_) => return Ok(false),
        };
        let expected = Expected {
            request,
            sender: &Sender::Anonymous,
            etag: server.config().etag,
            ignore_checksums: true,
            wanted: None,
        };
        if !is_trusted(request) {
            return Ok(false);
        }
        let needs_body = matches!(request.method(), "PUT" | "POST");
        let place = match &server.store.directory {
            Some(directory) if request.path().starts_with("/_local/objects/") => Place::File(directory.temporary()),
            _ => Place::Memory,
        };
        match needs_body {
            true => match receive(&mut incoming, &expected, place).await {
                Ok(received) => answer(server, request, Some(received)).await,
                Err(failure) => Err(failure),
            },
            false => answer(server, request, None).await,
        }
    };
    let response = match answer {
        Ok(response) => response,
        Err(Failure::Io(error)) => return Err(error),
        Err(Failure::S3(error)) => {
            let mut response = Response::new(error.status);
            response.header("Content-Type", "application/json");
            let document = json!({"code": error.code, "message": error.message});
            response.body = Body::Bytes(document.to_string().into());
            response
        }
    };
    let date = server.now(&effects).http();
    let (_, goes_on) = connection.respond(response, &effects, &date, "control", 0.0).await?;
    Ok(goes_on && request.keep_alive)
}

fn json_response(value: &impl serde::Serialize) -> Answer<Response> {
    let mut response = Response::new(200);
    response.header("Content-Type", "application/json");
    let text = serde_json::to_vec(value).map_err(io::Error::other)?;
    response.body = Body::Bytes(text.into());
    Ok(response)
}

async fn document<T: serde::de::DeserializeOwned>(received: Option<crate::keep::Received>) -> Result<T, Failure> {
    let content = received.map(|r| (r.size, r.content));
    let mut text = Vec::new();
    if let Some((size, content)) = content {
        for bytes in content.collect(0, size).await?.iter() {
            text.extend_from_slice(bytes);
        }
    }
    let text = if text.is_empty() { b"{}".to_vec() } else { text };
    let invalid = |error: serde_json::Error| S3Error::invalid_argument(error.to_string());
    Ok(serde_json::from_slice(&text).map_err(invalid)?)
}

/// One value or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<Value>),
    One(Value),
}

/// The parts of a configuration that can change while the server runs. What is absent stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    traffic: Option<Traffic>,
    #[serde(default, deserialize_with = "variants::read_some")]
    variant: Option<Variant>,
    credentials: Option<Vec<Credential>>,
    check_signatures: Option<bool>,
    anonymous_writes: Option<bool>,
    clock_offset_s: Option<i64>,
    max_skew_s: Option<i64>,
    wrong_region: Option<WrongRegion>,
    min_part_bytes: Option<u64>,
    etag: Option<EtagKind>,
    restore_s: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Absence {
    duration_s: f64,
    #[serde(default)]
    silent: bool,
}

async fn answer(server: &Server, request: &Request, received: Option<crate::keep::Received>) -> Answer<Response> {
    let path = percent_decode(&request.path()[ROOT.len()..], false).and_then(|path| String::from_utf8(path).ok());
    let path = path.ok_or_else(|| S3Error::invalid_argument("the path is not UTF-8"))?;
    let query = Query::parse(request.query())?;
    let parameter = |name: &str| query.get(name).unwrap_or("");
    let (command, rest) = path.split_once('/').unwrap_or((&path, ""));
    match (request.method(), command) {
        ("GET", "stats") => json_response(&server.stats.report()),
        ("POST", "reset") => {
            server.stats.reset();
            json_response(&json!({}))
        }
        ("GET", "log") => json_response(&server.stats.entries(parameter("after").parse().unwrap_or(0))),
        ("GET", "faults") => json_response(&server.plan.report()),
        ("POST", "faults") => {
            let rules = match document(received).await? {
                OneOrMany::Many(rules) => rules,
                OneOrMany::One(rule) => vec![rule],
            };
            let invalid = |error: serde_json::Error| S3Error::invalid_argument(error.to_string());
            let rules: Result<Vec<RuleConfig>, _> = rules.into_iter().map(serde_json::from_value).collect();
            let ids: Vec<u64> = rules.map_err(invalid)?.into_iter().map(|rule| server.plan.add(rule)).collect();
            json_response(&json!({"ids": ids}))
        }
        ("DELETE", "faults") => {
            server.plan.remove(rest.parse().ok());
            json_response(&json!({}))
        }
        ("POST", "buckets") => {
            let config: BucketConfig = document(received).await?;
            server.store.create(&config).map_err(S3Error::invalid_argument)?;
            json_response(&json!({}))
        }
        ("GET", "buckets") => {
            let names: Vec<String> = server.store.all().iter().map(|bucket| bucket.name.clone()).collect();
            json_response(&names)
        }
        ("POST", "synthetic") => {
            let config: SyntheticConfig = document(received).await?;
            server.store.bucket(rest)?.add_synthetic(&config).map_err(S3Error::invalid_argument)?;
            json_response(&json!({}))
        }
        ("GET", "keys") => keys(server, rest, parameter("prefix")),
        ("GET", "uploads") => uploads(server, rest),
        ("GET", "versions") => versions(server, rest, parameter("prefix")),
        (_, "objects") => {
            let (bucket, key) = rest.split_once('/').ok_or_else(|| S3Error::invalid_argument("no key"))?;
            object(server, request, bucket, key, received).await
        }
        ("POST", "config") => {
            let changes: Changes = document(received).await?;
            server.set_config(changed((*server.config()).clone(), changes));
            json_response(&json!({}))
        }
        ("POST", "outage") => {
            let Absence { duration_s, silent } = document(received).await?;
            server.outage(Outage { duration: Duration::try_from_secs_f64(duration_s).unwrap_or_default(), silent });
            json_response(&json!({}))
        }
        _ => Err(S3Error::new(404, "NoSuchCommand", format!("{} {path} is not known", request.method())).into()),
    }
}

fn changed(config: Config, changes: Changes) -> Config {
    Config {
        traffic: changes.traffic.unwrap_or(config.traffic),
        variant: changes.variant.unwrap_or(config.variant),
        credentials: changes.credentials.unwrap_or(config.credentials),
        check_signatures: changes.check_signatures.unwrap_or(config.check_signatures),
        anonymous_writes: changes.anonymous_writes.unwrap_or(config.anonymous_writes),
        clock_offset_s: changes.clock_offset_s.unwrap_or(config.clock_offset_s),
        max_skew_s: changes.max_skew_s.unwrap_or(config.max_skew_s),
        wrong_region: changes.wrong_region.unwrap_or(config.wrong_region),
        min_part_bytes: changes.min_part_bytes.unwrap_or(config.min_part_bytes),
        etag: changes.etag.unwrap_or(config.etag),
        restore_s: changes.restore_s.unwrap_or(config.restore_s),
        ..config
    }
}

fn keys(server: &Server, bucket: &str, prefix: &str) -> Answer<Response> {
    let bucket = server.store.bucket(bucket)?;
    let mut keys = Vec::new();
    let mut after = After::Start;
    loop {
        let page = bucket.list(prefix, "", &after, 10_000);
        keys.extend(page.keys().map(|key| String::from_utf8_lossy(key).into_owned()));
        match page.next {
            Some(next) => after = next,
            None => return json_response(&keys),
        }
    }
}

fn versions(server: &Server, bucket: &str, prefix: &str) -> Answer<Response> {
    let describe = |version: &ListedVersion| {
        json!({
            "key": String::from_utf8_lossy(&version.key),
            "version_id": version.id,
            "is_latest": version.is_latest,
            "is_delete_marker": version.item.is_none(),
            "size": version.item.as_ref().map(|item| item.size()),
        })
    };
    let page = server.store.bucket(bucket)?.list_versions(prefix, "", From::Start, usize::MAX);
    json_response(&page.versions.iter().map(describe).collect::<Vec<_>>())
}

fn uploads(server: &Server, bucket: &str) -> Answer<Response> {
    let describe = |upload: std::sync::Arc<crate::store::upload::Upload>| {
        let parts = lock(&upload.parts);
        let bytes: u64 = parts.values().map(|part| part.size).sum();
        json!({"key": upload.key, "upload_id": upload.id, "parts": parts.len(), "bytes": bytes})
    };
    let uploads: Vec<Value> = server.store.bucket(bucket)?.uploads().into_iter().map(describe).collect();
    json_response(&uploads)
}

async fn object(
    server: &Server,
    request: &Request,
    bucket: &str,
    key: &str,
    received: Option<crate::keep::Received>,
) -> Answer<Response> {
    let bucket = server.store.bucket(bucket)?;
    match (request.method(), received) {
        ("PUT", Some(received)) => {
            let checksum = Some(received.stored_checksum());
            let now = server.now(&Effects::default());
            let object = Object::new(received.content, received.size, received.etag, now);
            let mut attributes = Attributes::of(request)?;
            attributes.archive_tier = request.header("x-amz-archive-status").map(str::to_owned);
            let object = Object { attributes, checksum, ..object };
            let object = bucket.put(key, object, |_| Ok(()))?;
            json_response(&json!({"etag": object.etag, "size": object.size}))
        }
        ("DELETE", _) => {
            bucket.delete(key, None, |_| Ok(()))?;
            json_response(&json!({}))
        }
        ("GET", _) => {
            let object = bucket.get(key).ok_or_else(|| S3Error::no_such_key(key))?;
            if matches!(object.content, Content::Discarded) && object.size > 0 {
                return Err(S3Error::new(409, "Discarded", "the sink has kept no bytes of this object").into());
            }
            let mut response = Response::new(200);
            response.header("ETag", format!("\"{}\"", object.etag));
            let end = object.size;
            response.body = Body::Object { object, start: 0, end };
            Ok(response)
        }
        ("HEAD", _) => {
            let object = bucket.get(key).ok_or_else(|| S3Error::no_such_key(key))?;
            let mut response = Response::new(200);
            response.header("ETag", format!("\"{}\"", object.etag));
            response.announced = Some(object.size);
            Ok(response)
        }
        _ => Err(S3Error::invalid_argument("objects take GET, HEAD, PUT and DELETE").into()),
    }
}

/// A run of zero bytes as pieces of one allocation.
impl Body {
    pub fn zeros(length: u64) -> Self {
        use crate::store::content::Segments;
        let block = Bytes::from(vec![b'x'; (1 << 20).min(length as usize)]);
        let mut segments = Segments::default();
        let mut left = length;
        while left > 0 {
            let piece = block.slice(..block.len().min(left as usize));
            left -= piece.len() as u64;
            segments.push(piece);
        }
        let object = Object::new(Content::Memory(segments), length, hex(&[]), crate::date::Timestamp::now());
        Self::Object { object: std::sync::Arc::new(object), start: 0, end: length }
    }
}
