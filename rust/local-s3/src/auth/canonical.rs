//! The canonical form of a request.
use super::claim::Claim;
use crate::request::{Request, percent_decode, percent_encode};

/// The request as its sender must have seen it to sign it; `rewritten` adds what a proxy has made of Accept-Encoding.
pub fn canonical_request(
    request: &Request,
    claim: &Claim<'_>,
    names: &[&str],
    payload: &str,
    rewritten: bool,
) -> String {
    let mut out = String::with_capacity(1024);
    out.push_str(request.method());
    out.push('\n');
    // S3 encodes the decoded path once, whichever way it was sent.
    let path = percent_decode(request.path(), false).unwrap_or_default();
    out.push_str(&percent_encode(&path, true));
    out.push('\n');
    let encode = |text: &str| percent_encode(&percent_decode(text, true).unwrap_or_default(), false);
    let mut pairs: Vec<(String, String)> = request
        .query()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("X-Amz-Signature="))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    out.push_str(&pairs.join("&"));
    out.push('\n');
    for name in names {
        let values: Vec<String> = request
            .headers()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        out.push_str(name);
        out.push(':');
        out.push_str(&values.join(","));
        if rewritten && *name == "accept-encoding" {
            out.push_str(",gzip(gfe)");
        }
        out.push('\n');
    }
    out.push('\n');
    out.push_str(claim.signed_headers);
    out.push('\n');
    out.push_str(payload);
    out
}
