//! Memory that Python sees: bodies, and buffers to fill.
#![allow(unsafe_code)]

use crate::process::Local;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyIndexError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use s3dataset_engine::budget::Grant;
use s3dataset_engine::raw::{PooledBuffer, Span};
use s3dataset_engine::request::{Body, headers_of};
use std::ffi::c_int;

/// A caller's buffer as the engine sees it. The export keeps it alive and in place until the request is done.
pub fn foreign(object: &Bound<'_, PyAny>, writable: bool) -> PyResult<(PyUntypedBuffer, Span)> {
    let not_a_buffer = |e: PyErr| {
        let what = if writable { "a writable bytes-like object" } else { "a bytes-like object" };
        let error = PyTypeError::new_err(format!("argument must be {what}"));
        error.set_cause(object.py(), Some(e));
        error
    };
    let export = PyUntypedBuffer::get(object).map_err(not_a_buffer)?;
    if writable && export.readonly() {
        return Err(PyTypeError::new_err("argument must be a writable bytes-like object"));
    }
    if !export.is_c_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not C-contiguous"));
    }
    // SAFETY: the export pins the memory; the queue keeps it until the engine has given the memory up.
    let span = unsafe { Span::new(export.buf_ptr().cast(), export.len_bytes()) };
    Ok((export, span))
}

/// # Safety
/// As for `bf_getbuffer`: `view` is valid, and `owner` keeps `span` alive while it lives.
unsafe fn fill_view<T: pyo3::PyClass>(
    owner: Bound<'_, T>,
    span: Span,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    // An empty body has no address, which some consumers take for an error.
    static NOTHING: [u8; 1] = [0];
    let ptr = if span.is_empty() { NOTHING.as_ptr().cast_mut() } else { span.as_ptr() };
    // SAFETY: the caller's promise.
    let failed = unsafe { ffi::PyBuffer_FillInfo(view, owner.as_ptr(), ptr.cast(), span.len() as isize, 0, flags) };
    if failed != 0 { Err(PyErr::fetch(owner.py())) } else { Ok(()) }
}

#[pyclass(frozen, name = "Body", module = "s3dataset._native")]
pub struct PyBody {
    body: Body,
}

impl From<Body> for PyBody {
    fn from(body: Body) -> PyBody {
        PyBody { body }
    }
}

#[pymethods]
impl PyBody {
    fn __len__(&self) -> usize {
        self.body.buffer.len()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let span = slf.get().body.buffer.span();
        // SAFETY: Python's own call; the view holds a reference to `slf`, which owns the memory.
        unsafe { fill_view(slf, span, view, flags) }
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.body.buffer.len()
    }

    /// The same as `nbytes`.
    #[getter]
    fn size(&self) -> usize {
        self.body.buffer.len()
    }

    #[getter]
    fn uri(&self) -> String {
        format!("s3://{}/{}", self.body.target.route.bucket, self.body.target.key)
    }

    #[getter]
    fn start(&self) -> u64 {
        self.body.start
    }

    #[getter]
    fn object_size(&self) -> u64 {
        self.body.object_size
    }

    #[getter]
    fn etag(&self) -> &str {
        &self.body.etag
    }

    #[getter]
    fn last_modified(&self) -> Option<f64> {
        self.body.last_modified.map(|s| s as f64)
    }

    fn headers(&self) -> Vec<(String, String)> {
        headers_of(&self.body.head)
    }

    fn __repr__(&self) -> String {
        let (nbytes, start) = (self.body.buffer.len(), self.body.start);
        format!("<Body {}: {nbytes} bytes from {start} of {}>", self.uri(), self.body.object_size)
    }
}

#[pyclass(frozen, name = "Buffer", module = "s3dataset._native")]
pub struct PyBuffer {
    buffer: PooledBuffer,
    _grant: Local<Grant>,
}

impl PyBuffer {
    pub fn new(buffer: PooledBuffer, grant: Grant) -> PyBuffer {
        PyBuffer { buffer, _grant: Local::new(grant) }
    }
}

/// From here on a copy is worth letting other threads run.
const LARGE_COPY: usize = 256 << 10;

#[pymethods]
impl PyBuffer {
    fn __len__(&self) -> usize {
        self.buffer.len()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let span = slf.get().buffer.span();
        // SAFETY: as for Body.
        unsafe { fill_view(slf, span, view, flags) }
    }

    #[pyo3(signature = (offset, data, /))]
    fn copy_from(&self, py: Python<'_>, offset: usize, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let (export, source) = foreign(data, false)?;
        if offset > self.buffer.len() {
            return Err(PyIndexError::new_err(format!("offset {offset} in a buffer of {} bytes", self.buffer.len())));
        }
        let n = source.len().min(self.buffer.len() - offset);
        let (from, to) = (source.slice(0, n), self.buffer.span().slice(offset, n));
        if n >= LARGE_COPY {
            py.detach(|| to.copy_from_span(from));
        } else {
            to.copy_from_span(from);
        }
        export.release(py);
        Ok(n)
    }
}
