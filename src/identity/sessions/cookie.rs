//! The cookie that carries a refresh token. No script can read it, no other site can send it, and no
//! other path than the one that needs it ever sees it.

use super::{IDLE_MAX, RefreshToken};

/// Browsers accept a name that begins so only with `Secure` (RFC 6265bis, 4.1.3.1). `__Host-` would
/// demand the path `/`.
pub const NAME: &str = "__Secure-refresh";

const ATTRIBUTES: &str = "Path=/v1/auth; HttpOnly; Secure; SameSite=Strict";

/// The value of `Set-Cookie` that hands the token out, for as long as an unused session lasts.
pub fn set(token: &RefreshToken) -> String {
    format!("{NAME}={}; {ATTRIBUTES}; Max-Age={}", token.write(), IDLE_MAX.as_secs())
}

/// The value of `Set-Cookie` that takes the token away.
pub fn clear() -> String {
    format!("{NAME}=; {ATTRIBUTES}; Max-Age=0")
}

/// The refresh token among the values of the headers `Cookie`.
///
/// None if two cookies have its name: one of them was planted by another host of the same domain, and
/// nobody can tell which.
pub fn read<'a>(headers: impl Iterator<Item = &'a str>) -> Option<RefreshToken> {
    let mut values = headers
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == NAME)
        .map(|(_, value)| value);
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    RefreshToken::parse(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cookie_is_kept_from_scripts_other_sites_and_other_paths() {
        let token = RefreshToken::random();

        assert_eq!(
            set(&token),
            format!(
                "__Secure-refresh={}; Path=/v1/auth; HttpOnly; Secure; SameSite=Strict; Max-Age=2592000",
                token.write()
            )
        );
        assert_eq!(
            clear(),
            "__Secure-refresh=; Path=/v1/auth; HttpOnly; Secure; SameSite=Strict; Max-Age=0"
        );
    }

    #[test]
    fn the_token_is_found_among_other_cookies() {
        let token = RefreshToken::random();
        let ours = format!("{NAME}={}", token.write());

        for headers in [
            vec![ours.clone()],
            vec![format!("theme=dark; {ours}; cart=7")],
            vec![format!("theme=dark;{ours};")],
            vec!["theme=dark".to_owned(), ours.clone()],
        ] {
            let read = read(headers.iter().map(String::as_str));
            assert_eq!(read.as_ref(), Some(&token), "{headers:?}");
        }
    }

    #[test]
    fn a_cookie_that_may_be_planted_is_no_proof() {
        let ours = format!("{NAME}={}", RefreshToken::random().write());
        let planted = format!("{NAME}={}", RefreshToken::random().write());

        for headers in [
            vec![format!("{planted}; {ours}")],
            vec![format!("{NAME}=; {ours}")],
            vec![planted, ours.clone()],
            vec![ours.replace("__Secure-", "")],
            vec![ours.replace("__Secure-refresh", "__secure-REFRESH")],
            vec![format!("{ours}x")],
            vec![format!("x{ours}")],
            vec![format!("{NAME}=\"{}\"", &ours[NAME.len() + 1..])],
            vec![],
        ] {
            assert_eq!(read(headers.iter().map(String::as_str)), None, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read(header in "\\PC{0,200}") {
            prop_assert_eq!(read([header.as_str()].into_iter()), None);
        }

        #[test]
        fn our_cookie_is_found_wherever_it_stands(
            before in "([a-z]{1,8}=[a-z0-9]{0,8}; ?){0,5}",
            after in "(; ?[a-z]{1,8}=[a-z0-9]{0,8}){0,5};?",
        ) {
            let token = RefreshToken::random();
            let header = format!("{before}{NAME}={}{after}", token.write());
            prop_assert_eq!(read([header.as_str()].into_iter()), Some(token));
        }
    }
}
