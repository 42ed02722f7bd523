//! How long signing and reading a listing take. Ignored by default, because a time says nothing on a busy machine:
//!
//! ```text
//! cargo test --release -p s3dataset-engine --test pure_timing -- --ignored --nocapture --test-threads 1
//! ```

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use s3dataset_engine::checksum::{Algorithm, combine};
use s3dataset_engine::sign::{Credentials, Payload, Signer, encode_key};
use s3dataset_engine::xml::parse_list;

/// Prints the best and the median time of one call, over 200 rounds of `calls`.
fn measure(what: &str, calls: u32, mut call: impl FnMut()) {
    let mut rounds_us: Vec<f64> = (0..200)
        .map(|_| {
            let begin = Instant::now();
            (0..calls).for_each(|_| call());
            begin.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
        })
        .collect();
    rounds_us.sort_by(f64::total_cmp);
    println!("{what}: best {:.2} us, median {:.2} us", rounds_us[0], rounds_us[100]);
}

fn credentials(session_token: Option<String>) -> Credentials {
    Credentials {
        access_key: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        session_token,
        of_session: false,
    }
}

#[test]
#[ignore = "a measurement"]
fn signing() {
    for (what, token) in [("sign a ranged GET", None), ("the same with a token of 800 bytes", Some("t".repeat(800)))] {
        let credentials = credentials(token);
        let mut signer = Signer::new();
        let mut out = Vec::with_capacity(4_096);
        let mut epoch_s = 1_750_000_000;
        measure(what, 1_000, || {
            out.clear();
            epoch_s += 1;
            signer.sign(
                &credentials,
                "us-west-2",
                "s3",
                epoch_s / 1_000,
                "GET",
                "training-data.s3.us-west-2.amazonaws.com",
                "/imagenet/train/n01440764/n01440764_10026.JPEG",
                "",
                &[("range", "bytes=8388608-16777215")],
                Payload::Unsigned,
                &mut out,
            );
            black_box(&out);
        });
    }
    let mut path = String::new();
    measure("encode a key of 47 bytes", 1_000, || {
        path.clear();
        encode_key(black_box("imagenet/train/n01440764/n01440764 10026+a.JPEG"), &mut path);
    });
}

fn page(encoded: bool, with_checksums: bool) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <Name>b</Name><Prefix/><KeyCount>1000</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>\
        <IsTruncated>false</IsTruncated>"
        .to_owned();
    let separator = if encoded { "+%C3%A9" } else { "_" };
    let checksums = if with_checksums {
        "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
    } else {
        ""
    };
    for index in 0..1_000 {
        let size = 100_000 + index;
        write!(
            xml,
            "<Contents><Key>imagenet/train/n01440764/n01440764{separator}{index:08}.JPEG</Key>\
             <LastModified>2024-03-01T12:34:56.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag>\
             {checksums}<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
        .expect("a String takes all");
    }
    xml + "</ListBucketResult>"
}

#[test]
#[ignore = "a measurement"]
fn listing() {
    for (what, encoded, with_checksums) in [
        ("parse a page of 1,000 keys", false, false),
        ("the same with checksum elements", false, true),
        ("the same with encoded keys", true, true),
    ] {
        let xml = page(encoded, with_checksums);
        measure(&format!("{what}, {} kB", xml.len() / 1_000), 5, || {
            black_box(parse_list(black_box(xml.as_bytes())).expect("a page"));
        });
    }
}

#[test]
#[ignore = "a measurement"]
fn combining() {
    measure("combine the CRC64NVME of 8 MiB", 1_000, || {
        black_box(combine(Algorithm::Crc64Nvme, black_box(1), black_box(2), 8 << 20));
    });
}
