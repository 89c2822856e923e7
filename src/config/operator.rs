//! Who runs `ctl`, as far as it can be known.

use std::{env, fs};

use rustix::process::getuid;

/// The user of the system and the host: `grace@bastion`. Behind `sudo` it is who called it.
///
/// The name is what the environment says. Where it says nothing, the user's number stands for it.
pub fn operator() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(env::var_os);
    let user = names.filter_map(|name| name.into_string().ok()).find(|name| !name.is_empty());
    let user = user.unwrap_or_else(|| format!("uid {}", getuid().as_raw()));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}
