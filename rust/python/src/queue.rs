//! Queues: requests in, results out.
use crate::client::PyRoute;
use crate::functions::algorithm;
use crate::memory::{Export, foreign};
use crate::process::{Local, attached, wait};
use crate::received::{add, timed};
use crate::results::to_python;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use s3dataset_engine::client::{Client, Route};
use s3dataset_engine::engine::Engine;
use s3dataset_engine::queue::{Completed, Pending, Queue, TakeError};
use s3dataset_engine::request::{Call, CallKind, Check, Fetch, Job, Op, Payload, Target, What};
use s3dataset_engine::{checksum, sign, xml};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

#[pyclass(frozen, name = "Queue", module = "s3dataset._native", weakref)]
pub struct PyQueue {
    queue: Local<Arc<Queue>>,
    /// Callers' buffers that requests use, by index; released when the result is taken.
    exports: Mutex<HashMap<u64, Export>>,
}

type Get<'py> = (Bound<'py, PyRoute>, String, Option<i64>, Option<u64>, Option<u64>, Option<String>);
type GetInto<'py> = (Bound<'py, PyRoute>, String, u64, Option<String>, Bound<'py, PyAny>);
type Put<'py> = (Bound<'py, PyRoute>, String, Bound<'py, PyAny>, Vec<(String, String)>);
type Headers = Vec<(String, String)>;

impl PyQueue {
    pub fn new(engine: Arc<Engine>, client: Arc<Client>) -> PyQueue {
        PyQueue { queue: Local::new(Queue::new(engine, client)), exports: Mutex::default() }
    }

    fn exports(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Export>> {
        self.exports.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn submit(&self, jobs: Vec<(Target, Op, Option<Export>)>) -> PyResult<u64> {
        let queue = self.queue.get()?;
        let count = jobs.len();
        let mut jobs = jobs.into_iter();
        let mut exports = self.exports();
        let first = queue.submit(count, |index| {
            let Some((target, op, export)) = jobs.next() else { unreachable!("one for each index") };
            exports.extend(export.map(|export| (index, export)));
            Pending::Job(Job::new(queue.clone(), index, target, op))
        });
        Ok(first)
    }

    fn call(&self, route: &PyRoute, key: &str, call: Call, export: Option<Export>) -> PyResult<u64> {
        self.submit(vec![(target(route.get()?, key), Op::Call(Box::new(call)), export)])
    }

    /// Results for Python. A signal's handler that raises, as that of Ctrl-C, runs before they are handed over: its exception would
    /// come in place of what is returned, and they would be gone.
    fn convert(&self, py: Python<'_>, queue: &Queue, taken: Vec<Completed>) -> PyResult<Vec<(u64, Py<PyAny>)>> {
        if let Err(raised) = py.check_signals() {
            queue.give_back(taken);
            return Err(raised);
        }
        let released: Vec<Export> = {
            let mut exports = self.exports();
            if exports.is_empty() {
                Vec::new()
            } else {
                taken.iter().filter_map(|c| exports.remove(&c.index)).collect()
            }
        };
        released.into_iter().for_each(|export| export.release(py));
        taken.iter().for_each(|c| add(&c.outcome));
        taken.into_iter().map(|c| Ok((c.index, to_python(py, c.outcome)?))).collect()
    }
}

fn target(route: &Arc<Route>, key: &str) -> Target {
    Target { route: route.clone(), key: key.into(), version: None }
}

pub fn version(id: Option<&str>) -> Option<Arc<str>> {
    id.map(|id| query(&mut [("versionId", id)]).into())
}

fn query(pairs: &mut [(&str, &str)]) -> String {
    sign::canonical_query(pairs)
}

/// Python's words for a range: a negative start counts from the end.
pub fn fetch_of(
    start: Option<i64>,
    end: Option<u64>,
    size: Option<u64>,
    limit: Option<u64>,
    pin: Option<String>,
    verify: bool,
) -> PyResult<Fetch> {
    let what = match (start, end) {
        (None, None) => What::Whole,
        (Some(start), None) if start < 0 => What::Suffix(start.unsigned_abs()),
        (None, Some(end)) => What::Range { start: 0, end },
        (Some(start), _) if start < 0 => {
            return Err(PyValueError::new_err(format!("range [{start}, {end:?}) begins before the object")));
        }
        (Some(start), end) => What::Range { start: start as u64, end: end.or(size).unwrap_or(u64::MAX) },
    };
    let check = if verify { Check::Stored } else { Check::Usual };
    Ok(Fetch { what, size, limit: limit.unwrap_or(u64::MAX), pin, into: None, check })
}

/// One fetch from its submission to its result, for whoever has nothing else to ask for.
pub fn fetch_alone(
    py: Python<'_>,
    engine: Arc<Engine>,
    client: Arc<Client>,
    target: Target,
    fetch: Fetch,
) -> PyResult<Py<PyAny>> {
    let queue = Queue::new(engine, client);
    let job = |index| Job::new(queue.clone(), index, target, Op::Fetch(fetch));
    let mut signal = None;
    let taken = timed(|| {
        let index = py.detach(|| {
            let interrupted = || {
                signal = signal.take().or_else(|| attached(|py| py.check_signals().err()));
                signal.is_some()
            };
            queue.serve(job, interrupted)
        });
        match signal {
            Some(signal) => Err(signal),
            None => wait(py, None, |slice| queue.take(index..index + 1, slice).ok()),
        }
    });
    match taken.map(|taken| taken.and_then(|mut results| results.pop())) {
        Ok(Some(completed)) => {
            add(&completed.outcome);
            to_python(py, completed.outcome)
        }
        Ok(None) => unreachable!("a wait without an end ends with a result"),
        Err(signal) => {
            py.detach(|| queue.close());
            Err(signal)
        }
    }
}

fn with_checksum(mut call: Call, name: Option<&str>) -> PyResult<Call> {
    call.checksum = name.map(algorithm).transpose()?;
    Ok(call)
}

impl Drop for PyQueue {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.mine() {
            let queue = queue.clone();
            let is_busy = queue.unfinished() > 0 || queue.untaken() > 0;
            if is_busy && Python::try_attach(|py| py.detach(|| queue.close())).is_none() {
                queue.close();
            }
        }
    }
}

#[pymethods]
impl PyQueue {
    #[pyo3(signature = (requests, /, *, limit=None, version_id=None, verify=false))]
    fn get(&self, requests: Vec<Get<'_>>, limit: Option<u64>, version_id: Option<&str>, verify: bool) -> PyResult<u64> {
        let version = version(version_id);
        if limit == Some(0) {
            return Err(PyValueError::new_err("limit must be at least 1"));
        }
        let convert = |(route, key, start, end, size, pin): Get<'_>| {
            let fetch = fetch_of(start, end, size, limit, pin, verify)?;
            let target = Target { route: route.get().get()?.clone(), key: key.into(), version: version.clone() };
            Ok((target, Op::Fetch(fetch), None))
        };
        self.submit(requests.into_iter().map(convert).collect::<PyResult<_>>()?)
    }

    #[pyo3(signature = (requests, /, *, version_id=None, checksum=None))]
    fn get_into(&self, requests: Vec<GetInto<'_>>, version_id: Option<&str>, checksum: Option<&str>) -> PyResult<u64> {
        let version = version(version_id);
        let check = checksum.map(algorithm).transpose()?.map_or(Check::Usual, Check::Told);
        let convert = |(route, key, start, pin, buffer): GetInto<'_>| {
            let (export, span) = foreign(&buffer, true)?;
            let what = What::Range { start, end: start.saturating_add(span.len() as u64) };
            let fetch = Fetch { what, size: None, limit: u64::MAX, pin, into: Some(span), check };
            let target = Target { route: route.get().get()?.clone(), key: key.into(), version: version.clone() };
            Ok((target, Op::Fetch(fetch), Some(export)))
        };
        self.submit(requests.into_iter().map(convert).collect::<PyResult<_>>()?)
    }

    #[pyo3(signature = (requests, /, *, checksum=Some("CRC64NVME")))]
    fn put(&self, requests: Vec<Put<'_>>, checksum: Option<&str>) -> PyResult<u64> {
        let convert = |(route, key, data, headers): Put<'_>| {
            let (export, span) = foreign(&data, false)?;
            let mut call = with_checksum(Call::new(CallKind::Put, "PUT"), checksum)?;
            (call.headers, call.payload) = (headers, Payload::Foreign(span));
            let target = Target { route: route.get().get()?.clone(), key: key.into(), version: None };
            Ok((target, Op::Call(Box::new(call)), Some(export)))
        };
        self.submit(requests.into_iter().map(convert).collect::<PyResult<_>>()?)
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (route, key, upload_id, part_number, data, headers=Vec::new(), /, *, checksum=Some("CRC64NVME")))]
    fn upload_part(
        &self,
        route: &PyRoute,
        key: &str,
        upload_id: &str,
        part_number: u32,
        data: &Bound<'_, PyAny>,
        headers: Headers,
        checksum: Option<&str>,
    ) -> PyResult<u64> {
        let (export, span) = foreign(data, false)?;
        let mut call = with_checksum(Call::new(CallKind::UploadPart, "PUT"), checksum)?;
        call.query = query(&mut [("partNumber", &part_number.to_string()), ("uploadId", upload_id)]);
        (call.headers, call.payload) = (headers, Payload::Foreign(span));
        self.call(route, key, call, Some(export))
    }

    #[pyo3(signature = (route, key, headers=Vec::new(), /, *, checksum=Some("CRC64NVME")))]
    fn create_upload(&self, route: &PyRoute, key: &str, headers: Headers, checksum: Option<&str>) -> PyResult<u64> {
        let mut call = with_checksum(Call::new(CallKind::CreateUpload, "POST"), checksum)?;
        call.query = query(&mut [("uploads", "")]);
        call.headers = headers;
        self.call(route, key, call, None)
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (
        route, key, upload_id, parts, headers=Vec::new(), /, *, checksum=Some("CRC64NVME"), object_size=None
    ))]
    fn complete_upload(
        &self,
        route: &PyRoute,
        key: &str,
        upload_id: &str,
        parts: Vec<(u32, String, Option<String>)>,
        headers: Headers,
        checksum: Option<&str>,
        object_size: Option<u64>,
    ) -> PyResult<u64> {
        let mut call = with_checksum(Call::new(CallKind::CompleteUpload, "POST"), checksum)?;
        let element = call.checksum.map(checksum::Algorithm::xml_element);
        let parts: Vec<xml::Part<'_>> = parts
            .iter()
            .map(|(number, etag, value)| xml::Part { number: *number, etag, checksum: element.zip(value.as_deref()) })
            .collect();
        let document = xml::write_complete(&parts).map_err(|e| PyValueError::new_err(e.to_string()))?;
        call.query = query(&mut [("uploadId", upload_id)]);
        call.headers = headers;
        call.headers.extend(object_size.map(|n| ("x-amz-mp-object-size".to_owned(), n.to_string())));
        call.payload = Payload::Owned(document.into());
        self.call(route, key, call, None)
    }

    #[pyo3(signature = (route, key, upload_id, /))]
    fn abort_upload(&self, route: &PyRoute, key: &str, upload_id: &str) -> PyResult<u64> {
        let mut call = Call::new(CallKind::AbortUpload, "DELETE");
        call.query = query(&mut [("uploadId", upload_id)]);
        self.call(route, key, call, None)
    }

    #[pyo3(signature = (route, key, headers=Vec::new(), /, *, version_id=None))]
    fn head(&self, route: &PyRoute, key: &str, headers: Headers, version_id: Option<&str>) -> PyResult<u64> {
        let mut call = Call::new(CallKind::Head, "HEAD");
        let target = Target { version: version(version_id), ..target(route.get()?, key) };
        call.query = target.query().to_owned();
        call.headers = headers;
        self.submit(vec![(target, Op::Call(Box::new(call)), None)])
    }

    #[pyo3(signature = (route, prefix, /, *, delimiter="", start_after="", token=None, max_keys=1000))]
    fn list(
        &self,
        route: &PyRoute,
        prefix: &str,
        delimiter: &str,
        start_after: &str,
        token: Option<&str>,
        max_keys: u32,
    ) -> PyResult<u64> {
        let max_keys = max_keys.to_string();
        let mut pairs = vec![("list-type", "2"), ("encoding-type", "url")];
        let optional = [("prefix", prefix), ("delimiter", delimiter), ("start-after", start_after)];
        pairs.extend(optional.into_iter().filter(|(_, value)| !value.is_empty()));
        pairs.extend(token.map(|t| ("continuation-token", t)));
        if max_keys != "1000" {
            pairs.push(("max-keys", &max_keys));
        }
        let mut call = Call::new(CallKind::List, "GET");
        call.query = query(&mut pairs);
        self.call(route, "", call, None)
    }

    #[pyo3(signature = (route, prefix, /, *, key_marker="", upload_id_marker=""))]
    fn list_uploads(&self, route: &PyRoute, prefix: &str, key_marker: &str, upload_id_marker: &str) -> PyResult<u64> {
        let mut pairs = vec![("uploads", ""), ("encoding-type", "url")];
        let optional = [("prefix", prefix), ("key-marker", key_marker), ("upload-id-marker", upload_id_marker)];
        pairs.extend(optional.into_iter().filter(|(_, value)| !value.is_empty()));
        let mut call = Call::new(CallKind::ListUploads, "GET");
        call.query = query(&mut pairs);
        self.call(route, "", call, None)
    }

    #[pyo3(signature = (route, key, headers=Vec::new(), /, *, version_id=None))]
    fn delete(&self, route: &PyRoute, key: &str, headers: Headers, version_id: Option<&str>) -> PyResult<u64> {
        let mut call = Call::new(CallKind::Delete, "DELETE");
        call.query = version_id.map(|id| query(&mut [("versionId", id)])).unwrap_or_default();
        call.headers = headers;
        self.call(route, key, call, None)
    }

    #[pyo3(signature = (route, keys, /))]
    fn delete_many(&self, route: &PyRoute, keys: Vec<String>) -> PyResult<u64> {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let document = xml::write_delete(&keys, true).map_err(|e| PyValueError::new_err(e.to_string()))?;
        let mut call = Call::new(CallKind::DeleteMany, "POST");
        call.query = query(&mut [("delete", "")]);
        // Directory buckets know no MD5, and some other stores nothing else.
        call.headers = vec![if route.get()?.service == "s3express" {
            let algorithm = checksum::Algorithm::Crc32;
            (algorithm.header().to_owned(), checksum::encode(algorithm, checksum::checksum(algorithm, &document)))
        } else {
            ("content-md5".to_owned(), checksum::md5_base64(&document))
        }];
        call.payload = Payload::Owned(document.into());
        self.call(route, "", call, None)
    }

    #[pyo3(signature = (route, key, source, headers=Vec::new(), /))]
    fn copy(&self, route: &PyRoute, key: &str, source: &str, headers: Headers) -> PyResult<u64> {
        let mut call = Call::new(CallKind::Copy, "PUT");
        call.headers = headers;
        call.headers.push(copy_source(source));
        self.call(route, key, call, None)
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (route, key, upload_id, part_number, source, start, end, headers=Vec::new(), /))]
    fn copy_part(
        &self,
        route: &PyRoute,
        key: &str,
        upload_id: &str,
        part_number: u32,
        source: &str,
        start: u64,
        end: u64,
        headers: Headers,
    ) -> PyResult<u64> {
        if start >= end {
            return Err(PyValueError::new_err(format!("range [{start}, {end}) is empty")));
        }
        let mut call = Call::new(CallKind::UploadPartCopy, "PUT");
        call.query = query(&mut [("partNumber", &part_number.to_string()), ("uploadId", upload_id)]);
        call.headers = headers;
        call.headers.push(copy_source(source));
        call.headers.push(("x-amz-copy-source-range".to_owned(), format!("bytes={start}-{}", end - 1)));
        self.call(route, key, call, None)
    }

    #[pyo3(signature = (min_items=1, max_items=4096, timeout_s=None, /))]
    fn next(
        &self,
        py: Python<'_>,
        min_items: usize,
        max_items: usize,
        timeout_s: Option<f64>,
    ) -> PyResult<Vec<(u64, Py<PyAny>)>> {
        let queue = self.queue.get()?;
        let taken = timed(|| {
            wait(py, timeout_s, |slice| {
                let (taken, enough) = queue.next(min_items, max_items, slice);
                enough.then_some(taken)
            })
        })?;
        let taken = match taken {
            Some(taken) => taken,
            None => queue.next(1, max_items, std::time::Duration::ZERO).0,
        };
        self.convert(py, queue, taken)
    }

    #[pyo3(signature = (first, count, timeout_s=None, /))]
    fn take(&self, py: Python<'_>, first: u64, count: u64, timeout_s: Option<f64>) -> PyResult<Option<Vec<Py<PyAny>>>> {
        let queue = self.queue.get()?;
        let taken = timed(|| {
            wait(py, timeout_s, |slice| match queue.take(first..first.saturating_add(count), slice) {
                Ok(taken) => Some(Ok(taken)),
                Err(TakeError::NotYet) => None,
                Err(TakeError::Gone(index)) => Some(Err(index)),
            })
        })?;
        match taken {
            None => Ok(None),
            Some(Ok(taken)) => {
                Ok(Some(self.convert(py, queue, taken)?.into_iter().map(|(_, result)| result).collect()))
            }
            Some(Err(index)) => Err(PyIndexError::new_err(format!(
                "request {index} was never submitted, or its result was taken already"
            ))),
        }
    }

    #[pyo3(signature = (index, /))]
    fn ready(&self, index: u64) -> PyResult<bool> {
        Ok(self.queue.get()?.ready(index))
    }

    #[getter]
    fn unfinished(&self) -> PyResult<u64> {
        Ok(self.queue.get()?.unfinished())
    }

    #[getter]
    fn untaken(&self) -> PyResult<usize> {
        Ok(self.queue.get()?.untaken())
    }

    #[pyo3(signature = (first, count, /))]
    fn cancel(&self, first: u64, count: u64) -> PyResult<()> {
        self.queue.get()?.cancel(Some(first..first.saturating_add(count)));
        Ok(())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let queue = self.queue.get()?;
        py.detach(|| queue.close());
        let exports = std::mem::take(&mut *self.exports());
        exports.into_values().for_each(|export| export.release(py));
        Ok(())
    }
}

fn copy_source(source: &str) -> (String, String) {
    let mut encoded = String::with_capacity(source.len() + 8);
    sign::encode_key(source, &mut encoded);
    ("x-amz-copy-source".to_owned(), encoded)
}
