//! Results as Python sees them.
use crate::memory::PyBody;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use s3dataset_engine::date::parse_iso8601;
use s3dataset_engine::failure::Failure;
use s3dataset_engine::request::{Outcome, Reply, headers_of};
use s3dataset_engine::xml::ListPage;

pub fn to_python(py: Python<'_>, outcome: Outcome) -> PyResult<Py<PyAny>> {
    Ok(match outcome {
        Outcome::Body(body) => Py::new(py, PyBody::from(body))?.into_any(),
        Outcome::Reply(reply) => Py::new(py, PyReply(*reply))?.into_any(),
        Outcome::List(page) => Py::new(py, PyListPage(*page))?.into_any(),
        Outcome::Failure(failure) => Py::new(py, PyFailure(*failure))?.into_any(),
    })
}

#[pyclass(frozen, name = "Reply", module = "s3dataset._native")]
pub struct PyReply(Reply);

#[pymethods]
impl PyReply {
    #[getter]
    fn status(&self) -> u16 {
        self.0.status
    }

    #[getter]
    fn etag(&self) -> &str {
        &self.0.etag
    }

    #[getter]
    fn object_size(&self) -> u64 {
        self.0.object_size
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.0.nbytes
    }

    #[getter]
    fn last_modified(&self) -> Option<f64> {
        self.0.last_modified.map(|s| s as f64)
    }

    #[getter]
    fn upload_id(&self) -> &str {
        &self.0.upload_id
    }

    #[getter]
    fn in_doubt(&self) -> u32 {
        self.0.in_doubt
    }

    #[getter]
    fn checksum(&self) -> &str {
        &self.0.checksum
    }

    #[getter]
    fn key_errors(&self) -> Vec<(String, String, String)> {
        self.0.key_errors.clone()
    }

    #[getter]
    fn uploads(&self) -> Vec<(&str, &str, i64)> {
        let uploads = self.0.uploads.uploads.iter();
        uploads.map(|upload| (upload.key.as_str(), upload.upload_id.as_str(), upload.initiated_s)).collect()
    }

    #[getter]
    fn next_uploads(&self) -> Option<(&str, &str)> {
        let page = &self.0.uploads;
        page.is_truncated.then(|| {
            (
                page.next_key_marker.as_deref().unwrap_or_default(),
                page.next_upload_id_marker.as_deref().unwrap_or_default(),
            )
        })
    }

    fn headers(&self) -> Vec<(String, String)> {
        headers_of(&self.0.head)
    }

    fn __repr__(&self) -> String {
        format!("<Reply {} etag={} nbytes={}>", self.0.status, self.0.etag, self.0.nbytes)
    }
}

#[pyclass(frozen, name = "ListPage", module = "s3dataset._native")]
pub struct PyListPage(ListPage);

/// The numbers' own bytes, in native order.
fn column<T: Copy, const N: usize>(py: Python<'_>, values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Py<PyBytes> {
    let all: Vec<u8> = values.iter().flat_map(|v| bytes(*v)).collect();
    PyBytes::new(py, &all).unbind()
}

#[pymethods]
impl PyListPage {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    #[getter]
    fn is_truncated(&self) -> bool {
        self.0.is_truncated
    }

    #[getter]
    fn next_token(&self) -> Option<&str> {
        self.0.next_token.as_deref()
    }

    #[getter]
    fn common_prefixes(&self) -> Vec<String> {
        self.0.common_prefixes.clone()
    }

    #[getter]
    fn key_blob(&self, py: Python<'_>) -> Py<PyBytes> {
        PyBytes::new(py, &self.0.keys).unbind()
    }

    #[getter]
    fn key_ends(&self, py: Python<'_>) -> Py<PyBytes> {
        column(py, &self.0.key_ends, u32::to_ne_bytes)
    }

    #[getter]
    fn sizes(&self, py: Python<'_>) -> Py<PyBytes> {
        column(py, &self.0.sizes, u64::to_ne_bytes)
    }

    #[getter]
    fn mtimes(&self, py: Python<'_>) -> Py<PyBytes> {
        column(py, &self.0.mtimes, i64::to_ne_bytes)
    }

    #[getter]
    fn etag_blob(&self, py: Python<'_>) -> Py<PyBytes> {
        PyBytes::new(py, &self.0.etags).unbind()
    }

    #[getter]
    fn etag_ends(&self, py: Python<'_>) -> Py<PyBytes> {
        column(py, &self.0.etag_ends, u32::to_ne_bytes)
    }

    #[getter]
    fn storage_class_index(&self, py: Python<'_>) -> Py<PyBytes> {
        PyBytes::new(py, &self.0.storage_classes).unbind()
    }

    #[getter]
    fn storage_class_names(&self) -> Vec<String> {
        self.0.class_names.clone()
    }

    #[getter]
    fn restore_status(&self) -> Vec<(u32, bool, Option<f64>)> {
        let expiry = |text: &Option<String>| text.as_deref().and_then(parse_iso8601).map(|s| s as f64);
        self.0.restore_status.iter().map(|r| (r.index, r.is_in_progress, expiry(&r.expiry))).collect()
    }

    fn key(&self, row: usize) -> PyResult<String> {
        if row >= self.0.len() {
            return Err(PyIndexError::new_err(format!("row {row} of {}", self.0.len())));
        }
        Ok(String::from_utf8_lossy(self.0.key(row)).into_owned())
    }

    fn first_key(&self) -> PyResult<String> {
        self.key(0)
    }

    fn last_key(&self) -> PyResult<String> {
        self.key(self.0.len().wrapping_sub(1))
    }
}

#[pyclass(frozen, name = "Failure", module = "s3dataset._native")]
pub struct PyFailure(Failure);

#[pymethods]
impl PyFailure {
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind.name()
    }

    #[getter]
    fn operation(&self) -> &'static str {
        self.0.operation
    }

    #[getter]
    fn bucket(&self) -> &str {
        &self.0.bucket
    }

    #[getter]
    fn key(&self) -> &str {
        &self.0.key
    }

    #[getter]
    fn status(&self) -> u16 {
        self.0.status
    }

    #[getter]
    fn code(&self) -> &str {
        &self.0.code
    }

    #[getter]
    fn message(&self) -> &str {
        &self.0.message
    }

    #[getter]
    fn request_id(&self) -> &str {
        &self.0.request_id
    }

    #[getter]
    fn host_id(&self) -> &str {
        &self.0.host_id
    }

    #[getter]
    fn attempts(&self) -> u32 {
        self.0.attempts
    }

    #[getter]
    fn elapsed_s(&self) -> f64 {
        self.0.elapsed_s
    }

    #[getter]
    fn causes(&self) -> Vec<String> {
        self.0.causes.clone()
    }

    #[getter]
    fn retries_exhausted(&self) -> bool {
        self.0.retries_exhausted
    }

    #[getter]
    fn region(&self) -> &str {
        &self.0.region
    }

    fn __repr__(&self) -> String {
        let f = &self.0;
        format!(
            "<Failure {} {} s3://{}/{} {} {}: {}>",
            f.kind.name(),
            f.operation,
            f.bucket,
            f.key,
            f.status,
            f.code,
            f.message
        )
    }
}
