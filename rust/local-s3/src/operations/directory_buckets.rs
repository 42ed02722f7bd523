//! Directory buckets (S3 Express One Zone): their sessions, and what they refuse that other buckets take.
//!
//! A bucket is one by its name, `base--zone--x-s3`, as at S3.
use super::{Call, Operation, copy};
use crate::auth::{self, Sender};
use crate::config::{Config, Credential};
use crate::date::Timestamp;
use crate::error::{Answer, S3Error};
use crate::request::{Query, Request, Target};
use crate::response::Response;
use crate::server::Server;
use crate::store::content::mix;
use crate::store::lock;
use crate::xml::Writer;
use std::collections::HashMap;
use std::sync::Mutex;

/// Whether a bucket of this name is one.
pub fn is_one(bucket: &str) -> bool {
    bucket.ends_with("--x-s3")
}

/// The sessions of a server, by token.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<String, Session>>);

#[derive(Clone)]
struct Session {
    bucket: String,
    access_key: String,
    secret_key: String,
    until: Timestamp,
    read_only: bool,
}

const TOKEN: &str = "x-amz-s3session-token";
const MODE: &str = "x-amz-create-session-mode";

/// Operations for which the keys of a session are no good.
fn wants_own_keys(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::CreateSession
            | Operation::CopyObject
            | Operation::UploadPartCopy
            | Operation::HeadBucket
            | Operation::CreateBucket
            | Operation::DeleteBucket
    )
}

/// Finds out who sent a request, by the keys of a session where it names one.
pub fn authenticate(
    server: &Server,
    request: &Request,
    query: &Query,
    config: &Config,
    operation: Operation,
    target: &Target,
    now: Timestamp,
) -> Result<Sender, S3Error> {
    let signed = request.header("authorization");
    let for_express = signed.is_some_and(|header| header.contains("/s3express/aws4_request"));
    if signed.is_some() && !target.bucket.is_empty() && for_express != is_one(&target.bucket) {
        let (right, wrong) = if for_express { ("s3", "s3express") } else { ("s3express", "s3") };
        let message = format!("The authorization header is malformed; incorrect service \"{wrong}\", not \"{right}\".");
        return Err(S3Error::new(400, "AuthorizationHeaderMalformed", message));
    }
    let Some(token) = request.header(TOKEN) else {
        return auth::authenticate(request, query, config, &config.credentials, now);
    };
    let invalid = || S3Error::new(400, "InvalidToken", "The provided token is malformed or otherwise invalid.");
    let session = lock(&server.sessions.0).get(token).cloned().ok_or_else(invalid)?;
    let credential = Credential {
        access_key: session.access_key,
        secret_key: session.secret_key,
        session_token: None,
        expired: session.until <= now,
    };
    let sender = auth::authenticate(request, query, config, &[credential], now)?;
    let allowed = session.bucket == target.bucket && !(session.read_only && operation.writes());
    if !allowed || wants_own_keys(operation) {
        return Err(S3Error::access_denied());
    }
    Ok(sender)
}

pub fn create_session(call: &Call<'_>) -> Answer<Response> {
    let bucket = call.bucket()?;
    if !is_one(&bucket.name) {
        return Err(S3Error::invalid_request("CreateSession is supported for directory buckets only").into());
    }
    let read_only = match call.request.header(MODE) {
        None | Some("ReadWrite") => false,
        Some("ReadOnly") => true,
        Some(_) => return Err(S3Error::invalid_argument("Unknown session mode").into()),
    };
    let now = call.server.now(call.effects);
    let mut sessions = lock(&call.server.sessions.0);
    sessions.retain(|_, session| session.until.shifted(3600) > now);
    let salt = mix(call.server.salt ^ now.seconds as u64 ^ (sessions.len() as u64) << 48 ^ u64::from(now.millis));
    let text = |n: u64| format!("{:016x}{:016x}", mix(salt ^ n), mix(salt.rotate_left(32) ^ n));
    let session = Session {
        bucket: bucket.name.clone(),
        access_key: format!("ASIA{}", text(1)[..16].to_uppercase()),
        secret_key: text(2),
        until: now.shifted(call.config.session_lifetime_s),
        read_only,
    };
    let token = text(3);
    let mut out = Writer::new(512);
    out.root("CreateSessionResult");
    out.open("Credentials");
    out.text("SessionToken", &token);
    out.text("SecretAccessKey", &session.secret_key);
    out.text("AccessKeyId", &session.access_key);
    out.text("Expiration", &session.until.iso());
    out.close("Credentials");
    out.close("CreateSessionResult");
    sessions.insert(token, session);
    let mut response = Response::xml(out.finish());
    for (name, value) in call.request.headers() {
        if name.to_ascii_lowercase().starts_with("x-amz-server-side-encryption") {
            response.header(name, value);
        }
    }
    Ok(response)
}

/// Refuses what such a bucket does not know.
pub fn check(call: &Call<'_>) -> Answer<()> {
    if !is_one(&call.target.bucket) {
        return Ok(());
    }
    let request = call.request;
    let unknown =
        ["content-md5", "x-amz-acl", "x-amz-server-side-encryption-customer-algorithm", "x-amz-website-redirect"];
    if let Some(name) = unknown.into_iter().find(|name| request.header(name).is_some()) {
        return Err(S3Error::not_implemented(name).into());
    }
    if request.header("x-amz-tagging").is_some_and(|tags| !tags.is_empty()) {
        return Err(S3Error::not_implemented("x-amz-tagging").into());
    }
    if request.header("x-amz-storage-class").is_some_and(|class| class != "EXPRESS_ONEZONE") {
        let message = "The storage class you specified is not valid";
        return Err(S3Error::new(400, "InvalidStorageClass", message).into());
    }
    match call.operation {
        Operation::ListObjects => Err(S3Error::not_implemented("ListObjects").into()),
        Operation::ListObjectsV2 => check_listing(call),
        Operation::CopyObject if request.header("x-amz-tagging-directive") != Some("REPLACE") => {
            let (_, _, source) = copy::source(call)?;
            match source.attributes.tags {
                None => Ok(()),
                Some(_) => Err(S3Error::not_implemented("x-amz-tagging-directive").into()),
            }
        }
        _ => Ok(()),
    }
}

fn check_listing(call: &Call<'_>) -> Answer<()> {
    let given = |name: &str| call.query.get(name).filter(|value| !value.is_empty());
    if given("prefix").is_some_and(|prefix| !prefix.ends_with('/')) {
        let message = "This bucket does not support a prefix that does not end in a delimiter. Specify a prefix path \
                       ending with a delimiter and try again.";
        return Err(S3Error::invalid_request(message).into());
    }
    if given("delimiter").is_some_and(|delimiter| delimiter != "/") {
        return Err(S3Error::invalid_request("This bucket does not support a delimiter other than '/'").into());
    }
    if given("start-after").is_some() {
        return Err(S3Error::not_implemented("start-after").into());
    }
    Ok(())
}
