//! `local-s3 '<configuration as JSON>'`: prints one line of JSON when it listens and ends when its stdin does.

fn main() -> std::io::Result<()> {
    let config = std::env::args().nth(1).unwrap_or_else(|| "{}".to_owned());
    s3dataset_local_s3::run(&config, |ready| {
        // A parent that has gone cannot read the line; the end of stdin ends the server then.
        let _ = ready.print();
    })
}
