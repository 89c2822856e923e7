/// What a client calls itself, as far as it is kept: for the user to know their session again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAgent(String);

impl UserAgent {
    /// Browsers need about 120; what is longer only costs us.
    pub const LENGTH_MAX: usize = 200;

    /// Takes the header `User-Agent`, cut to [`LENGTH_MAX`](Self::LENGTH_MAX) characters. None is empty.
    pub fn of(header: Option<&str>) -> Self {
        let printable = header.unwrap_or_default().chars().filter(|letter| !letter.is_control());
        Self(printable.take(Self::LENGTH_MAX).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_call_itself_what_it_likes_and_is_cut() {
        assert_eq!(UserAgent::of(None).as_str(), "");
        assert_eq!(UserAgent::of(Some("curl/8.0\u{0}\u{7}")).as_str(), "curl/8.0");
        assert_eq!(UserAgent::of(Some(&"ы".repeat(300))).as_str(), "ы".repeat(200));
    }
}
