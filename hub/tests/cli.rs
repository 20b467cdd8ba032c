//! The program as people and scripts use it: a process, its exit status and what it prints.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

const RULES: &str = "\
connections:
  out: { file: { path: out.jsonl } }
rules:
  - name: hot
    from: { mqtt: [\"t/+\"] }
    where: { data: { temp: [ { numeric: [\">\", 10] } ] } }
    to: [ { out: } ]
";

fn tidemill(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.current_dir(dir).args(args);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    tidemill(dir, args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A hub in a process of its own. Killed when it is dropped.
struct Hub {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    mqtt: String,
    http: String,
}

impl Hub {
    fn start(dir: &Path) -> Hub {
        let args = ["serve", "--rules", "rules.yaml", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        let log = std::fs::File::create(dir.join("log.txt")).unwrap();
        let mut child = tidemill(dir, &args).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let told =
            line.trim_end().strip_prefix("tidemill: ready mqtt=").unwrap_or_else(|| panic!("{line:?}"));
        let (mqtt, http) = told.split_once(" http=").unwrap();
        Hub { mqtt: mqtt.to_owned(), http: http.to_owned(), child, _stdout: stdout }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn end(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn check_tells_what_is_good_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.yaml"), RULES).unwrap();
    std::fs::write(dir.path().join("bad.yaml"), "data_dir: x\nmqtt: { lisen: [] }\n").unwrap();
    let good = run(dir.path(), &["check", "good.yaml"]);
    assert_eq!(
        (stdout(&good).as_str(), good.status.code()),
        ("good.yaml: ok, 1 connection, 1 rule\n", Some(0))
    );
    let mixed = run(dir.path(), &["check", "bad.yaml", "good.yaml"]);
    assert_eq!(mixed.status.code(), Some(1));
    let told = stdout(&mixed);
    assert!(told.contains("bad.yaml:2:9") && told.contains("unknown key `lisen`"), "{told}");
    assert!(
        told.contains("did you mean `listen`?") && told.ends_with("good.yaml: ok, 1 connection, 1 rule\n"),
        "{told}"
    );
    assert_eq!(run(dir.path(), &["check"]).status.code(), Some(2));
}

#[test]
fn serve_refuses_a_bad_configuration_and_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.yaml"), RULES.replace("out: }", "lake: }")).unwrap();
    let refused = run(dir.path(), &["serve", "--rules", "bad.yaml"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("no connection `lake`"), "{}", stderr(&refused));
    let open = run(dir.path(), &["serve", "--mqtt", "0.0.0.0:0"]);
    assert_eq!(open.status.code(), Some(1));
    assert!(stderr(&open).contains("--allow-anonymous"), "{}", stderr(&open));
    let quiet = run(dir.path(), &["check", "missing.yaml"]);
    assert!(stdout(&quiet).contains("tidemill check missing.yaml"), "{}", stdout(&quiet));
    assert!(!dir.path().join("tidemill-data").exists());
}

#[test]
fn serve_publish_tail_why_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yaml"), RULES).unwrap();
    let hub = Hub::start(dir.path());
    let out = dir.path().join("out.jsonl");
    let publish =
        |message: &str| run(dir.path(), &["pub", "t/a", message, "--mqtt", &hub.mqtt, "--property", "k=v"]);
    let done = publish(r#"{"temp":11}"#);
    assert_eq!(stdout(&done), "published 1 to `t/a`, 11 bytes each, QoS 1\n", "{}", stderr(&done));
    publish(r#"{"temp":9}"#);
    let (_, port) = hub.mqtt.rsplit_once(':').unwrap();
    let named = run(dir.path(), &["pub", "other", "x", "--mqtt", &format!("localhost:{port}")]);
    assert_eq!(stdout(&named), "published 1 to `other`, 1 byte each, QoS 1\n", "{}", stderr(&named));
    until("the event is in the file", || read(&out).lines().count() == 1);

    let tail = |more: &[&str]| {
        let common = ["tail", "t/+", "--from", "earliest", "--wait", "0s", "--http", &hub.http];
        stdout(&run(dir.path(), &[&common, more].concat()))
    };
    let lines = tail(&[]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.lines().next().unwrap().ends_with(r#" t/a {"temp":11}"#), "{lines}");
    assert!(tail(&["--json", "--limit", "1"]).contains(r#""user_properties":[["k","v"]]"#));
    let position = lines.split_whitespace().nth(1).unwrap();
    let why = stdout(&run(dir.path(), &["why", position, "--http", &hub.http]));
    assert!(why.contains("rule hot: matched") && why.contains("out (file out.jsonl): delivered"), "{why}");

    // A bad file changes nothing, a good one does.
    std::fs::write(dir.path().join("rules.yaml"), "rules: 7\n").unwrap();
    hub.signal(rustix::process::Signal::HUP);
    until("the bad file is refused", || read(dir.path().join("log.txt")).contains("the rules at work stay"));
    publish(r#"{"temp":12}"#);
    until("the old rule is at work", || read(&out).lines().count() == 2);
    std::fs::write(dir.path().join("rules.yaml"), RULES.replace("\">\", 10", "\">\", 0")).unwrap();
    hub.signal(rustix::process::Signal::HUP);
    until("the good file is taken", || read(dir.path().join("log.txt")).contains("are reloaded"));
    publish(r#"{"temp":1}"#);
    until("the new rule is at work", || read(&out).lines().count() == 3);

    let second = run(dir.path(), &["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("in use by another process"), "{}", stderr(&second));
    assert_eq!(hub.end(), Some(0));
    let hub = Hub::start(dir.path());
    let used = run(dir.path(), &["store", "verify"]);
    assert_eq!(used.status.code(), Some(1));
    assert!(stderr(&used).contains("in use by another process"), "{}", stderr(&used));
    assert_eq!(hub.end(), Some(0), "it starts again in the same place");

    let store = |args: &[&str]| run(dir.path(), &[&["store"], args].concat());
    let verified = store(&["verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}{}", stdout(&verified), stderr(&verified));
    assert!(stdout(&verified).ends_with("all well\n"), "{}", stdout(&verified));
    assert!(stdout(&store(&["rebuild-index"])).starts_with("derived "));
    assert_eq!(store(&["verify"]).status.code(), Some(0));
    assert!(stdout(&store(&["stats", "--json"])).contains("\"index_bytes\""));
    assert_eq!(stdout(&store(&["dump", position, "--raw"])), r#"{"temp":11}"#);
    let missing = store(&["stats", "--data-dir", "nowhere"]);
    assert!(stderr(&missing).contains("data directory nowhere does not exist"), "{}", stderr(&missing));
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn a_tail_that_the_hub_ends_fails_and_says_where_to_go_on() {
    use rustix::process::Signal;

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yaml"), RULES).unwrap();
    for (signal, said) in [(Signal::TERM, "the hub is stopping"), (Signal::KILL, "the connection to the hub")]
    {
        let mut hub = Hub::start(dir.path());
        run(dir.path(), &["pub", "unread", "x", "--mqtt", &hub.mqtt]);
        let args = ["tail", "#", "--from", "earliest", "--http", &hub.http];
        let tail = tidemill(dir.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut tail = tail.unwrap();
        let mut out = BufReader::new(tail.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        hub.signal(signal);
        hub.child.wait().unwrap();
        let ended = tail.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
        let told = stderr(&ended);
        assert!(told.contains(said) && told.contains("go on with --from 0-"), "{told}");
        // From there on, there is nothing: everything was seen.
        let hub = Hub::start(dir.path());
        let from = told.trim_end().rsplit(' ').next().unwrap();
        let rest = run(dir.path(), &["tail", "#", "--from", from, "--wait", "0s", "--http", &hub.http]);
        assert_eq!((rest.status.code(), stdout(&rest).as_str()), (Some(0), ""), "{}", stderr(&rest));
    }
}

#[test]
fn commands_say_so_when_no_hub_is_there() {
    let dir = tempfile::tempdir().unwrap();
    // A port that nobody listens on: one that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let publish = run(dir.path(), &["pub", "t", "x", "--mqtt", &address]);
    assert_eq!(publish.status.code(), Some(1));
    assert!(stderr(&publish).contains("is a hub running"), "{}", stderr(&publish));
    let tail = run(dir.path(), &["tail", "t", "--http", &address]);
    assert_eq!(tail.status.code(), Some(1));
    assert!(stderr(&tail).contains("no hub answers"), "{}", stderr(&tail));
    let wildcard = run(dir.path(), &["pub", "t/#", "x"]);
    assert_eq!(wildcard.status.code(), Some(1));
    let no_port = run(dir.path(), &["pub", "t", "x", "--mqtt", "localhost"]);
    assert!(stderr(&no_port).contains("write it as 127.0.0.1:1883"), "{}", stderr(&no_port));
    assert_eq!(run(dir.path(), &["pub", "t", "x", "--count", "0"]).status.code(), Some(2));
}

#[test]
fn a_signal_that_comes_twice_at_once_stops_gracefully() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yaml"), RULES).unwrap();
    let hub = Hub::start(dir.path());
    hub.signal(rustix::process::Signal::INT);
    until("it stops", || read(dir.path().join("log.txt")).contains("stopping"));
    assert_eq!(hub.end(), Some(0));
}

#[test]
fn an_outage_longer_than_the_demo_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = run(dir.path(), &["demo", "--for", "1s", "--outage", "2s"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--outage 2s is longer than the demo (1s)"), "{}", stderr(&refused));
}

#[test]
fn an_unknown_row_of_the_bench_is_told_with_all_rows() {
    let dir = tempfile::tempdir().unwrap();
    let refused = run(dir.path(), &["bench", "store", "--rows", "append,fast"]);
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    assert!(told.contains("'fast'") && told.contains("append, sync,") && told.contains("cursors"), "{told}");
}

#[test]
fn schema_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&run(dir.path(), &["schema"]).stdout).unwrap();
    assert!(schema.get("properties").is_some_and(|properties| properties.get("rules").is_some()), "{schema}");
}

#[test]
fn the_demo_accounts_for_everything_through_an_outage() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["demo", "--for", "4s", "--outage", "1s", "--vehicles", "100", "--rate", "500"];
    let demo = run(dir.path(), &args);
    let told = stdout(&demo);
    assert_eq!(demo.status.code(), Some(0), "{told}{}", stderr(&demo));
    assert!(told.starts_with("demo: a hub with "), "{told}");
    assert!(told.contains("the HTTP function is down"), "{told}");
    for second in 1..=3 {
        let line = format!("demo: publishing, {second} s of 4 s");
        assert_eq!(told.matches(&line).count(), 1, "{line} in\n{told}");
    }
    let last = told.lines().last().unwrap();
    assert!(last.starts_with("demo: published ") && last.ends_with(", lost 0"), "{last}");
}
