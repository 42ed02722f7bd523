//! Small things that must agree with the engine.
use crate::memory::foreign;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use s3dataset_engine::checksum::{self as sums, Algorithm};
use s3dataset_engine::sign as signing;
use std::collections::HashMap;

pub fn algorithm(name: &str) -> PyResult<Algorithm> {
    Algorithm::from_name(name)
        .ok_or_else(|| PyValueError::new_err(format!("checksum {name:?} is none of CRC64NVME, CRC32C, CRC32")))
}

#[pyfunction]
#[pyo3(signature = (algorithm, parts, /))]
pub fn combine_checksums(algorithm: &str, parts: Vec<(String, u64)>) -> PyResult<String> {
    let algorithm = self::algorithm(algorithm)?;
    let mut all = sums::checksum(algorithm, b"");
    for (text, len) in parts {
        let value = sums::decode(algorithm, &text)
            .ok_or_else(|| PyValueError::new_err(format!("{text:?} is no {} checksum", algorithm.name())))?;
        all = sums::combine(algorithm, all, value, len);
    }
    Ok(sums::encode(algorithm, all))
}

#[pyfunction]
#[pyo3(signature = (data, /))]
pub fn prefer_huge_pages(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    let (export, span) = foreign(data, true)?;
    s3dataset_engine::raw::prefer_huge_pages(span);
    export.release(py);
    Ok(())
}

#[pyfunction]
#[pyo3(signature = (algorithm, data, /))]
pub fn checksum(py: Python<'_>, algorithm: &str, data: &Bound<'_, PyAny>) -> PyResult<String> {
    let algorithm = self::algorithm(algorithm)?;
    let (export, span) = foreign(data, false)?;
    let value = py.detach(|| {
        let mut digest = sums::Digest::new(algorithm);
        let mut scratch = vec![0; span.len().min(64 << 10)];
        span.for_each_chunk(&mut scratch, |chunk| digest.update(chunk));
        digest.value()
    });
    export.release(py);
    Ok(sums::encode(algorithm, value))
}

#[pyfunction]
#[allow(clippy::too_many_arguments)]
#[pyo3(signature = (
    *, access_key, secret_key, session_token, of_session=false, region, service, epoch_s, method, host, key, query, headers
))]
pub fn sign(
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    of_session: bool,
    region: &str,
    service: &str,
    epoch_s: u64,
    method: &str,
    host: &str,
    key: &str,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
) -> HashMap<String, String> {
    let mut path = String::from("/");
    signing::encode_key(key, &mut path);
    let mut pairs: Vec<(&str, &str)> = query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let query = signing::canonical_query(&mut pairs);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let credentials = signing::Credentials { access_key, secret_key, session_token, of_session };
    let mut out = Vec::new();
    let payload = signing::Payload::Unsigned;
    let mut signer = signing::Signer::new();
    signer.sign(&credentials, region, service, epoch_s, method, host, &path, &query, &headers, payload, &mut out);
    let lines = String::from_utf8_lossy(&out).into_owned();
    let pairs = lines.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}
