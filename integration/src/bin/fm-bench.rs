//! Data plane benchmark: the same requests through Envoy and through our proxy, in the same run.
//!
//!   fm-bench dataplane [ROUNDS]     plain one hop, and mutual TLS over two hops; median of ROUNDS
//!   (default 3)
//!
//! Prints CPU-µs per request (all proxies of the path), requests per second, p50 and p99, and the
//! proxies' resident memory, for 1,000 requests per second and at saturation. Load comes from
//! h2load; proxies run with one worker each.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is its result")]

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use ferromesh_integration::{
    paths,
    plane::{ControlPlane, curl},
    process::Process,
};

/// One way a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    /// The caller's proxy, then the application.
    PlainOneHop,
    /// The caller's proxy, mutual TLS, the callee's proxy, the application.
    MutualTlsTwoHops,
}

/// How much load.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Rate(u32),
    Saturation,
}

/// What one round measured.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    cpu_us: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    rss_mb: f64,
}

const CONTROL: &str = "127.79.0.1";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) != Some("dataplane") {
        bail!("usage: fm-bench dataplane [ROUNDS]");
    }
    let rounds = arguments.get(1).map_or(Ok(3), |r| r.parse()).context("ROUNDS is a number")?;
    let bench = Bench::start();
    println!(
        "{:<22} {:<11} {:<10} {:>10} {:>10} {:>9} {:>9} {:>8}",
        "path", "load", "proxy", "CPU-µs/req", "req/s", "p50 ms", "p99 ms", "RSS MB"
    );
    for path in [Path::PlainOneHop, Path::MutualTlsTwoHops] {
        for load in [Load::Rate(1000), Load::Saturation] {
            // Rounds alternate between the peers, so that both meet the same noise.
            let mut of = [Vec::new(), Vec::new()];
            for round in 0..rounds {
                for (kind, measured) in ["envoy", "run"].iter().zip(&mut of) {
                    eprintln!("round {} of {rounds}: {} {}", round + 1, name(kind), path.name());
                    measured.push(bench.round(kind, path, load)?);
                }
            }
            let [envoy, ours] = of.map(median);
            row(path, load, "Envoy", envoy);
            row(path, load, "ferromesh", ours);
            println!(
                "{:<45} {:>9.2}x {:>9.2}x {:>8.2}x {:>8.2}x {:>7.2}x",
                "  ferromesh / Envoy",
                ours.cpu_us / envoy.cpu_us,
                ours.per_second / envoy.per_second,
                ours.p50_ms / envoy.p50_ms,
                ours.p99_ms / envoy.p99_ms,
                ours.rss_mb / envoy.rss_mb
            );
        }
    }
    Ok(())
}

fn name(kind: &str) -> &'static str {
    if kind == "envoy" { "Envoy" } else { "ferromesh" }
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Self::PlainOneHop => "plain, one hop",
            Self::MutualTlsTwoHops => "mTLS, two hops",
        }
    }
}

fn row(path: Path, load: Load, proxy: &str, m: Measured) {
    let load = match load {
        Load::Rate(rate) => format!("{rate}/s"),
        Load::Saturation => "saturated".to_owned(),
    };
    println!(
        "{:<22} {load:<11} {proxy:<10} {:>10.1} {:>10.0} {:>9.3} {:>9.3} {:>8.1}",
        path.name(),
        m.cpu_us,
        m.per_second,
        m.p50_ms,
        m.p99_ms,
        m.rss_mb
    );
}

fn median(rounds: Vec<Measured>) -> Measured {
    let of = |field: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Measured {
        cpu_us: of(|m| m.cpu_us),
        per_second: of(|m| m.per_second),
        p50_ms: of(|m| m.p50_ms),
        p99_ms: of(|m| m.p99_ms),
        rss_mb: of(|m| m.rss_mb),
    }
}

/// One control plane and one application; proxies come and go with the rounds. Fields are dropped
/// in order: processes before their folder.
struct Bench {
    _control_plane: Process,
    _application: Process,
    control: ControlPlane,
}

/// Addresses of a workload: application, inbound, outbound, own.
fn address(index: u8, host: u8) -> String {
    format!("127.79.{index}.{host}")
}

const CONFIG: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: meshed}
spec: {selector: {app: meshed}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {selector: {app: plain}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: meshed, labels: {app: meshed, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: meshed, containers: [{name: app, image: bench}]}
status: {phase: Running, podIP: 127.79.2.2, podIPs: [{ip: 127.79.2.2}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, labels: {app: plain}}
spec: {serviceAccountName: plain, containers: [{name: app, image: bench}]}
status: {phase: Running, podIP: 127.79.2.1, podIPs: [{ip: 127.79.2.1}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: caller, labels: {app: caller, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: caller, containers: [{name: app, image: bench}]}
status: {phase: Running, podIP: 127.79.1.2, podIPs: [{ip: 127.79.1.2}], conditions: [{type: Ready, status: "True"}]}
"#;

impl Bench {
    fn start() -> Self {
        let control = ControlPlane::new(CONTROL);
        control.write("mesh.yaml", CONFIG);
        let control_plane = control.start();
        let mut application = Command::new(paths::program("fm-peer"));
        application.args(["serve", &format!("{}:9080", address(2, 1)), "origin", "v1"]);
        let application = Process::start("origin", control.folder(), application);
        Self { _control_plane: control_plane, _application: application, control }
    }

    fn proxy(&self, kind: &str, index: u8, workload: &str) -> anyhow::Result<Process> {
        let token = self.control.path(&format!("{workload}.token"));
        fs::write(&token, self.control.join_token("default", workload))?;
        let mut command = Command::new(paths::program("ferromesh-proxy"));
        command.arg(kind).args([
            "--control-plane",
            &self.control.address(15012),
            "--namespace",
            "default",
        ]);
        command
            .arg("--root-cert")
            .arg(self.control.path("data/root-cert.pem"))
            .arg("--token-file")
            .arg(&token);
        command.args([
            "--service-account",
            workload,
            "--name",
            workload,
            "--ip",
            &address(index, 2),
            "--interception",
            "none",
        ]);
        command.args([
            "--app-address",
            &address(index, 1),
            "--inbound-address",
            &address(index, 2),
            "--outbound-address",
            &address(index, 3),
        ]);
        let own = |port: u16| format!("{}:{port}", address(index, 4));
        command.args([
            "--admin-address",
            &own(15000),
            "--status-address",
            &own(15021),
            "--metrics-address",
            &own(15090),
        ]);
        command
            .args(["--concurrency", "1", "--drain-time", "0s", "--work-dir"])
            .arg(self.control.path(workload));
        if kind == "envoy" {
            command.arg("--envoy-path").arg(paths::envoy());
        }
        let mut process =
            Process::start(&format!("{kind}-{workload}"), self.control.folder(), command);
        let ready = format!("http://{}/healthz/ready", own(15021));
        process.until("ready", || curl(&ready).is_some());
        Ok(process)
    }

    fn round(&self, kind: &str, path: Path, load: Load) -> anyhow::Result<Measured> {
        let mut proxies = vec![self.proxy(kind, 1, "caller")?];
        let host = match path {
            Path::PlainOneHop => "plain:9080",
            Path::MutualTlsTwoHops => {
                proxies.push(self.proxy(kind, 2, "meshed")?);
                "meshed:9080"
            }
        };
        let url = format!("http://{}:9080/bench", address(1, 3));
        ensure!(curl_host(&url, host), "the path does not work: {host}");
        self.load(&url, host, Load::Saturation, Duration::from_secs(1))?;
        let (begin, before) = (Instant::now(), cpu_us(&proxies)?);
        let (requests, latencies) = self.load(&url, host, load, Duration::from_secs(4))?;
        let (seconds, after) = (begin.elapsed().as_secs_f64(), cpu_us(&proxies)?);
        let percentile = |p: usize| {
            latencies
                .get((latencies.len() * p / 100).min(latencies.len().saturating_sub(1)))
                .copied()
                .unwrap_or_default()
        };
        Ok(Measured {
            cpu_us: (after - before) as f64 / requests as f64,
            per_second: requests as f64 / seconds,
            p50_ms: f64::from(percentile(50)) / 1000.0,
            p99_ms: f64::from(percentile(99)) / 1000.0,
            rss_mb: rss_kb(&proxies)? as f64 / 1024.0,
        })
    }

    /// Runs h2load; the number of good requests and their sorted latencies in µs.
    fn load(
        &self,
        url: &str,
        host: &str,
        load: Load,
        time: Duration,
    ) -> anyhow::Result<(usize, Vec<u32>)> {
        let log: PathBuf = self.control.path("latencies");
        let _ = fs::remove_file(&log);
        let mut command = Command::new("h2load");
        command.args(["--h1", "-t1", "-c32", "-H", &format!(":authority: {host}")]);
        match load {
            Load::Rate(rate) => command.args([
                "--rps",
                &(rate / 32).max(1).to_string(),
                "-D",
                &time.as_secs().to_string(),
            ]),
            Load::Saturation => command.args(["-D", &time.as_secs().to_string()]),
        };
        let output = command
            .arg(format!("--log-file={}", log.display()))
            .arg(url)
            .output()
            .context("h2load")?;
        ensure!(output.status.success(), "h2load: {}", String::from_utf8_lossy(&output.stderr));
        let mut latencies = Vec::new();
        for line in fs::read_to_string(&log)?.lines() {
            let mut fields = line.split('\t').skip(1);
            let (status, micros) =
                (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            ensure!(status == "200", "a request was answered {status}");
            latencies.push(micros.parse()?);
        }
        latencies.sort_unstable();
        ensure!(
            !latencies.is_empty(),
            "no request was answered: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        Ok((latencies.len(), latencies))
    }
}

fn curl_host(url: &str, host: &str) -> bool {
    (0..100).any(|_| {
        let works = Command::new("curl")
            .args(["-sf", "-m", "2", "-o", "/dev/null", "-H", &format!("Host: {host}"), url])
            .status()
            .is_ok_and(|s| s.success());
        if !works {
            std::thread::sleep(Duration::from_millis(50));
        }
        works
    })
}

/// The processes with all their children: an agent's Envoy is what serves.
fn family(process: &Process) -> Vec<u32> {
    let mut family = vec![process.id()];
    let mut next = 0;
    while let Some(id) = family.get(next).copied() {
        let children =
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        next += 1;
    }
    family
}

/// CPU time of all threads in µs, from the scheduler's own account.
fn cpu_us(proxies: &[Process]) -> anyhow::Result<u64> {
    let mut total = 0;
    for id in proxies.iter().flat_map(family) {
        for task in fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            total += text
                .split_whitespace()
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or_default();
        }
    }
    Ok(total / 1000)
}

/// Resident memory of the proxies: of an agent with an Envoy, the Envoy's.
fn rss_kb(proxies: &[Process]) -> anyhow::Result<u64> {
    let mut total = 0;
    for proxy in proxies {
        let id = *family(proxy).last().context("a process")?;
        let text = fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = text.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
        total += line
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse::<u64>().ok())
            .context("VmRSS is a number")?;
    }
    Ok(total)
}
