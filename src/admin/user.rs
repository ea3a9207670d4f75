//! Who asks: the operating system's users, by name.

use nix::unistd::{Uid, User};

/// The name of the user `uid`; `uid N` where the system has none for it. May
/// ask a directory service, so it may block.
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

/// The name of the user who runs this process.
pub fn own_name() -> String {
    user_name(Uid::current().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_root_and_a_stranger_keeps_the_number() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_123_456), "uid 4000123456");
    }
}
