//! What this process takes of the machine, by the names that every program's metrics have: read from /proc.
//!
//! **Failure policy.** What cannot be read has no series.

use std::fs;

use super::exposition::Family;

/// The kernel's unit of processor time in /proc, USER_HZ: 100 for every program, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// Where the fields of `/proc/self/stat` begin that follow the program's name (proc(5)): the third.
const FIRST: usize = 3;
const UTIME: usize = 14 - FIRST;
const STIME: usize = 15 - FIRST;
const STARTED: usize = 22 - FIRST;

/// The families of this process.
pub(super) fn families() -> Vec<Family> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
    let gauge = |name, help| Family::gauge(name, help, &[]);
    let help = "Processor time in user and kernel";
    let cpu = Family::counter("process_cpu_seconds", help, &[]);
    [
        (cpu, cpu_seconds(&stat)),
        (
            gauge("process_max_fds", "Most file descriptors that it may open"),
            max_fds(&limits),
        ),
        (
            gauge("process_open_fds", "Open file descriptors"),
            open_fds(),
        ),
        (
            gauge("process_resident_memory_bytes", "Memory in use"),
            kilobytes(&status, "VmRSS:"),
        ),
        (
            gauge(
                "process_start_time_seconds",
                "When it was started, in seconds since 1970",
            ),
            started(&stat, &machine),
        ),
        (
            gauge("process_threads", "Threads"),
            number(&status, "Threads:"),
        ),
        (
            gauge("process_virtual_memory_bytes", "Addresses in use"),
            kilobytes(&status, "VmSize:"),
        ),
    ]
    .into_iter()
    .map(|(family, value)| match value {
        Some(value) => family.single(value),
        None => family,
    })
    .collect()
}

/// A field of `/proc/self/stat`: the program's name may hold spaces and parentheses, so they are counted from its end.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(number)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, UTIME)? + field(stat, STIME)?) / TICKS)
}

fn started(stat: &str, machine: &str) -> Option<f64> {
    Some(number(machine, "btime")? + field(stat, STARTED)? / TICKS)
}

fn open_fds() -> Option<f64> {
    // The one that lists them is not counted.
    let all = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(all.saturating_sub(1)).ok().map(f64::from)
}

fn max_fds(limits: &str) -> Option<f64> {
    number(limits, "Max open files")
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    Some(number(status, name)? * 1024.0)
}

/// The number behind a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_behind_the_name() {
        let fields: Vec<String> = (3..30).map(|number| number.to_string()).collect();
        let stat = format!("1 (a ) (b) {}", fields.join(" "));

        assert_eq!(cpu_seconds(&stat), Some(0.29));
        assert_eq!(started(&stat, "cpu 1\nbtime 1000\n"), Some(1000.22));
        assert_eq!(kilobytes("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12_288.0));
        assert_eq!(
            max_fds("Max open files            1024                 4096                 files\n"),
            Some(1024.0)
        );
    }

    #[test]
    fn this_process_is_told_of_in_full() {
        let page =
            super::super::exposition::page(&families(), super::super::exposition::Format::Text)
                .unwrap();

        for family in families() {
            assert!(page.contains(&format!("\n{} ", family.name)), "{page}");
        }
    }
}
