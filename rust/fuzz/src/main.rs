//! One program for all trials; `S3DATASET_FUZZ_TRIAL` names the one to run. With `S3DATASET_FUZZ_SEEDS`, it only writes their
//! first inputs and dictionaries into that folder.
#![no_main]

use s3dataset_engine::trials::{TRIALS, Trial};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::{env, fs, io, process};

static TRIAL: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: prepare(), |bytes: &[u8]| {
    if let Some(run) = TRIAL.get() {
        run(bytes);
    }
});

fn prepare() {
    if let Some(folder) = env::var_os("S3DATASET_FUZZ_SEEDS") {
        let written = TRIALS.iter().try_for_each(|trial| write_seeds(trial, Path::new(&folder)));
        process::exit(if written.is_ok() { 0 } else { 1 });
    }
    let name = env::var("S3DATASET_FUZZ_TRIAL").unwrap_or_default();
    let Some(trial) = TRIALS.iter().find(|trial| trial.name == name) else {
        eprintln!("S3DATASET_FUZZ_TRIAL is to be one of {:?}", TRIALS.map(|trial| trial.name));
        process::exit(2);
    };
    TRIAL.get_or_init(|| trial.run);
}

fn write_seeds(trial: &Trial, folder: &Path) -> io::Result<()> {
    let corpus = folder.join(trial.name);
    fs::create_dir_all(&corpus)?;
    for (number, input) in trial.begin.iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number}")), input)?;
    }
    let mut dictionary = String::new();
    for splinter in trial.splinters {
        dictionary.push('"');
        for byte in *splinter {
            let _ = write!(dictionary, "\\x{byte:02x}");
        }
        dictionary.push_str("\"\n");
    }
    fs::write(folder.join(format!("{}.dict", trial.name)), dictionary)
}
