//! The head of a request, checked and signed.
use super::{Attempts, Request};
use crate::client::Place;
use crate::failure::{Fault, Kind, Retry};
use crate::sign;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

impl Attempts<'_> {
    /// The request's head, signed now.
    pub(super) fn head_of(&self, request: &Request<'_>, place: &Place) -> Result<Vec<u8>, Fault> {
        let (client, route) = (self.client, &self.target.route);
        let of_bucket = matches!(
            self.operation,
            "ListObjectsV2" | "ListMultipartUploads" | "HeadBucket" | "DeleteObjects" | "CreateSession"
        );
        let of_object = !of_bucket && !matches!(self.operation, "DeleteObject" | "AbortMultipartUpload");
        if self.target.key.is_empty() && !of_bucket {
            return Err(Fault::invalid("the key is empty: that names the bucket, not an object"));
        }
        let mut path = String::with_capacity(route.path_prefix.len() + self.target.key.len() + 16);
        path.push_str(&route.path_prefix);
        if !self.target.key.is_empty() || path.is_empty() {
            path.push('/');
            sign::encode_key(&self.target.key, &mut path);
        }
        let mut out = Vec::with_capacity(1024);
        let mut put = |parts: &[&str]| parts.iter().for_each(|p| out.extend_from_slice(p.as_bytes()));
        put(&[request.method, " ", &path]);
        if !request.query.is_empty() {
            put(&["?", request.query]);
        }
        put(&[" HTTP/1.1\r\nhost: ", &place.authority, "\r\nuser-agent: ", &client.settings.user_agent, "\r\n"]);
        let object_headers = client.settings.object_headers.0.iter().filter(|_| of_object);
        let common = client.settings.headers.iter().chain(object_headers).map(|(n, v)| (n.as_str(), v.as_str()));
        let signed: Vec<(&str, &str)> = common.chain(request.headers.iter().copied()).collect();
        let has_control = |text: &str| text.bytes().any(|b| b < b' ' && b != b'\t' || b == 127);
        for (name, value) in &signed {
            let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(Fault::invalid(format!("{name:?} is no header name in lower case")));
            }
            if has_control(value) {
                return Err(Fault::invalid(format!("the value of header {name} has a control character")));
            }
            put(&[name, ": ", value, "\r\n"]);
        }
        if let Some(range) = &request.range {
            put(&["range: ", range, "\r\n"]);
        }
        if let Some(etag) = request.if_match {
            if has_control(etag) {
                return Err(Fault::invalid(format!("{etag:?} is no ETag")));
            }
            put(&["if-match: ", etag, "\r\n"]);
        }
        if matches!(request.method, "PUT" | "POST") {
            put(&["content-length: ", &request.body.len().to_string(), "\r\n"]);
        }
        if !client.settings.unsigned {
            let (credentials, version) = client.credentials();
            self.credentials_version.set(version);
            let Some(credentials) = credentials else {
                return Err(Fault::new(Kind::Credentials, Retry::Never, "this client has no credentials"));
            };
            let (credentials, kept_for) = match &self.session {
                Some(session) => (&session.credentials, &route.bucket),
                None => (&*credentials, &place.region),
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            let epoch_s = now.saturating_add_signed(route.clock_offset_s.load(Relaxed));
            self.lane.with_signer(client.id, kept_for, |signer| {
                signer.sign(
                    credentials,
                    &place.region,
                    &route.service,
                    epoch_s,
                    request.method,
                    &place.authority,
                    &path,
                    request.query,
                    &signed,
                    sign::Payload::Unsigned,
                    &mut out,
                );
            });
        }
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }
}
