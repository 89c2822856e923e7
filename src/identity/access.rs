use std::{fmt, time::Duration};

use jsonwebtoken::{
    Algorithm, Header, Validation, decode, decode_header, encode, errors::ErrorKind,
};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{IdentityError, KeyRing, Role};
use crate::kernel::{self, SessionId, UserId};

/// How long an access token is good; then a refresh token gets another.
const LIFETIME: Duration = Duration::from_mins(10);
/// For clocks of our own machines that differ.
const LEEWAY: Duration = Duration::from_secs(5);
/// About 50 MB when full; beyond it the least used tokens are simply verified again.
const VERIFIED_MAX: u64 = 200_000;
/// Ours have about 500 bytes; what is longer is not hashed or read at all.
const LENGTH_MAX: usize = 2_048;

const ISSUER: &str = "holdfast";
const AUDIENCE: &str = "holdfast-api";
/// Tells access tokens from any other token that the same keys may come to sign.
const TYPE: &str = "access";

/// Issues access tokens and tells whether one is ours. Whether what it says still holds, the
/// [`Standings`](super::sessions::Standings) know.
pub struct Tokens {
    keys: KeyRing,
    validation: Validation,
    verified: Cache<[u8; 32], Session>,
}

/// An access token, to be handed out.
pub struct AccessToken {
    pub token: String,
    pub expires_in: Duration,
}

/// What a valid access token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub role: Role,
    /// The user's `token_epoch` when the token was issued.
    pub epoch: i32,
    /// Seconds since 1970.
    expires_at: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    typ: String,
    sub: Uuid,
    sid: Uuid,
    role: Role,
    epoch: i32,
    iat: i64,
    exp: i64,
}

impl Tokens {
    pub fn new(keys: KeyRing) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY.as_secs();
        // We write none, but whoever writes one means it.
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let verified = Cache::builder().max_capacity(VERIFIED_MAX).time_to_live(LIFETIME).build();
        Self { keys, validation, verified }
    }

    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Issues a token that says who the user is, for ten minutes or until the session ends.
    pub fn issue(
        &self,
        user_id: UserId,
        session_id: SessionId,
        role: Role,
        epoch: i32,
    ) -> Result<AccessToken, IdentityError> {
        let now = kernel::time::now();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            typ: TYPE.to_owned(),
            sub: user_id.uuid(),
            sid: session_id.uuid(),
            role,
            epoch,
            iat: now.unix_timestamp(),
            exp: (now + LIFETIME).unix_timestamp(),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.keys.signing_kid.clone());
        let token = encode(&header, &claims, &self.keys.signing)?;
        Ok(AccessToken { token, expires_in: LIFETIME })
    }

    /// Tells what the token says, if one of our keys has signed it and it has not expired.
    ///
    /// The signature is checked once and the answer remembered, but never past the token's own end.
    pub async fn verify(&self, token: &str) -> Result<Session, IdentityError> {
        if token.len() > LENGTH_MAX {
            return Err(IdentityError::Unauthenticated);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(session) = self.remembered(digest).await {
            return Ok(session);
        }
        let session = self.read(token)?;
        self.verified.insert(digest, session).await;
        Ok(session)
    }

    async fn remembered(&self, digest: [u8; 32]) -> Option<Session> {
        let session = self.verified.get(&digest).await?;
        (kernel::time::now().unix_timestamp() < session.expires_at).then_some(session)
    }

    /// Reads a token that one of our keys signed. Of the header only `alg` and `kid` count.
    fn read(&self, token: &str) -> Result<Session, IdentityError> {
        let header = decode_header(token).map_err(|_| IdentityError::Unauthenticated)?;
        // `crit` names what the reader must understand, and we understand none (RFC 7515).
        if header.crit.is_some() {
            return Err(IdentityError::Unauthenticated);
        }
        let kid = header.kid.ok_or(IdentityError::Unauthenticated)?;
        let key = self.keys.verifying.get(&kid).ok_or(IdentityError::Unauthenticated)?;
        let claims =
            decode::<Claims>(token, key, &self.validation).map_err(|error| refusal(&error))?.claims;
        if claims.typ != TYPE {
            return Err(IdentityError::Unauthenticated);
        }
        Ok(Session {
            user_id: claims.sub.into(),
            session_id: claims.sid.into(),
            role: claims.role,
            epoch: claims.epoch,
            expires_at: claims.exp,
        })
    }
}

fn refusal(error: &jsonwebtoken::errors::Error) -> IdentityError {
    if matches!(error.kind(), ErrorKind::ExpiredSignature) {
        return IdentityError::TokenExpired;
    }
    IdentityError::Unauthenticated
}

/// Written without the token.
impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("keys", &self.keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use jsonwebtoken::EncodingKey;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const OLD: u8 = 1;
    const NEW: u8 = 2;

    fn ring(seeds: &[(&str, u8)]) -> KeyRing {
        let seeds: Vec<_> = seeds.iter().map(|&(kid, byte)| (kid.to_owned(), [byte; 32])).collect();
        KeyRing::from_seeds(&seeds).unwrap()
    }

    fn tokens() -> Tokens {
        Tokens::new(ring(&[("new", NEW), ("old", OLD)]))
    }

    fn claims() -> Value {
        let now = kernel::time::now().unix_timestamp();
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "typ": TYPE, "sub": Uuid::from_u128(7),
            "sid": Uuid::from_u128(8), "role": "customer", "epoch": 3, "iat": now, "exp": now + 600,
        })
    }

    fn without(mut claims: Value, claim: &str) -> Value {
        claims.as_object_mut().unwrap().remove(claim);
        claims
    }

    fn with(mut claims: Value, claim: &str, value: impl Into<Value>) -> Value {
        claims[claim] = value.into();
        claims
    }

    fn header(kid: &str) -> Header {
        Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) }
    }

    fn signed(header: &Header, claims: &Value) -> String {
        encode(header, claims, &tokens().keys.signing).unwrap()
    }

    /// A token with any header, validly signed by our key over whatever it says.
    fn signed_raw(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = jsonwebtoken::crypto::sign(
            message.as_bytes(),
            &tokens().keys.signing,
            Algorithm::EdDSA,
        );
        format!("{message}.{}", signature.unwrap())
    }

    fn refused(token: &str) -> bool {
        matches!(tokens().read(token), Err(IdentityError::Unauthenticated))
    }

    fn public_key() -> Vec<u8> {
        tokens().keys.verifying["new"].try_get_as_bytes().unwrap().to_vec()
    }

    #[test]
    fn an_issued_token_says_who_the_user_is() {
        let (user_id, session_id) = (UserId::generate(), SessionId::generate());

        let token = tokens().issue(user_id, session_id, Role::Staff, 3).unwrap().token;

        let session = tokens().read(&token).unwrap();
        assert_eq!((session.user_id, session.session_id), (user_id, session_id));
        assert_eq!((session.role, session.epoch), (Role::Staff, 3));
    }

    #[test]
    fn keys_change_without_a_token_being_refused_until_the_old_one_is_retired() {
        let user_id = UserId::generate();
        let before = Tokens::new(ring(&[("old", OLD)]));
        let after = Tokens::new(ring(&[("new", NEW)]));

        let token = before.issue(user_id, SessionId::generate(), Role::Customer, 0).unwrap().token;

        assert_eq!(tokens().read(&token).unwrap().user_id, user_id);
        assert!(matches!(after.read(&token), Err(IdentityError::Unauthenticated)));
    }

    #[test]
    fn only_ed25519_is_accepted() {
        let secret = EncodingKey::from_secret(&public_key());
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { alg: algorithm, ..header("new") };
            assert!(refused(&encode(&header, &claims(), &secret).unwrap()), "{algorithm:?}");
        }
        for algorithm in ["none", "None", "", "RS256", "ES256", "HS256", "PS512", "Ed448"] {
            let header = json!({ "typ": "JWT", "alg": algorithm, "kid": "new" });
            assert!(refused(&signed_raw(&header, &claims())), "{algorithm}");
        }
        let none = signed_raw(&json!({ "alg": "none", "kid": "new" }), &claims());
        let unsigned = none.rsplit_once('.').unwrap().0;
        assert!(refused(&format!("{unsigned}.")));
        assert!(refused(unsigned));
    }

    #[test]
    fn another_payload_or_signature_is_refused() {
        let mine = signed(&header("new"), &claims());
        let yours = signed(&header("new"), &with(claims(), "role", "admin"));
        let (my_message, my_signature) = mine.rsplit_once('.').unwrap();
        let (your_message, _) = yours.rsplit_once('.').unwrap();

        assert!(!refused(&mine));
        assert!(refused(&format!("{your_message}.{my_signature}")));
        assert!(refused(&format!("{my_message}.{}", &my_signature[..my_signature.len() - 2])));
        assert!(refused(&format!("{my_message}.")));
        assert!(refused(&format!("{mine}.{my_signature}")));
        let stranger = Tokens::new(ring(&[("new", 99)]));
        let forged = stranger.issue(UserId::generate(), SessionId::generate(), Role::Admin, 0);
        assert!(refused(&forged.unwrap().token));
    }

    #[test]
    fn the_key_name_only_finds_a_key_of_ours() {
        for kid in ["", "old", "unknown", "../../dev/null", "' OR 1=1 --", &"k".repeat(10_000)] {
            // Signed by "new" under another name, which is the wrong key or none.
            assert!(refused(&signed(&header(kid), &claims())), "{kid:.20}");
        }
        assert!(refused(&signed(&Header::new(Algorithm::EdDSA), &claims())));
        assert!(refused(&signed_raw(&json!({ "alg": "EdDSA", "kid": ["new"] }), &claims())));
    }

    #[test]
    fn a_key_that_the_token_brings_along_is_ignored() {
        let attackers = ring(&[("new", 99)]);
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&attackers.signing, Algorithm::EdDSA);
        let header = Header {
            jwk: Some(jwk.unwrap()),
            jku: Some("http://127.0.0.1:1/jwks.json".into()),
            x5u: Some("http://127.0.0.1:1/x5u".into()),
            ..header("new")
        };

        assert!(refused(&encode(&header, &claims(), &attackers.signing).unwrap()));
    }

    #[test]
    fn a_header_that_demands_understanding_is_refused() {
        let header = json!({ "alg": "EdDSA", "kid": "new", "crit": ["b64"], "b64": true });

        assert!(refused(&signed_raw(&header, &claims())));
    }

    #[test]
    fn every_claim_counts() {
        for claims in [
            with(claims(), "aud", "another-api"),
            with(claims(), "aud", json!(["another-api"])),
            with(claims(), "iss", "somebody"),
            with(claims(), "typ", "refresh"),
            with(claims(), "sub", "root"),
            with(claims(), "sid", 8),
            with(claims(), "role", "owner"),
            with(claims(), "exp", "tomorrow"),
            with(claims(), "nbf", kernel::time::now().unix_timestamp() + 60),
            without(claims(), "aud"),
            without(claims(), "iss"),
            without(claims(), "typ"),
            without(claims(), "sub"),
            without(claims(), "sid"),
            without(claims(), "role"),
            without(claims(), "epoch"),
            without(claims(), "exp"),
        ] {
            assert!(refused(&signed(&header("new"), &claims)), "{claims}");
        }
    }

    #[test]
    fn an_expired_token_is_told_apart_only_if_it_was_ours() {
        let now = kernel::time::now().unix_timestamp();
        let minute_ago = with(claims(), "exp", now - 60);
        let ours = signed(&header("new"), &minute_ago);
        let forged = encode(&header("new"), &minute_ago, &ring(&[("new", 99)]).signing).unwrap();
        let within_leeway = signed(&header("new"), &with(claims(), "exp", now - 2));

        assert!(matches!(tokens().read(&ours), Err(IdentityError::TokenExpired)));
        assert!(refused(&forged));
        assert!(tokens().read(&within_leeway).is_ok());
    }

    #[tokio::test]
    async fn a_verified_token_is_remembered_but_not_past_its_end() {
        let tokens = tokens();
        let now = kernel::time::now().unix_timestamp();
        let session = |expires_at| Session {
            user_id: UserId::generate(),
            session_id: SessionId::generate(),
            role: Role::Customer,
            epoch: 0,
            expires_at,
        };
        let (alive, over) = (session(now + 60), session(now));
        tokens.verified.insert([1; 32], alive).await;
        tokens.verified.insert([2; 32], over).await;

        assert_eq!(tokens.remembered([1; 32]).await, Some(alive));
        assert_eq!(tokens.remembered([2; 32]).await, None);
        assert_eq!(tokens.remembered([3; 32]).await, None);
        assert_eq!(tokens.verified.policy().time_to_live(), Some(LIFETIME));
        assert_eq!(tokens.verified.policy().max_capacity(), Some(VERIFIED_MAX));
    }

    /// Whatever JSON may stand in a header.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            prop_oneof![Just("EdDSA"), Just("HS256"), Just("none"), Just("new"), Just("old")]
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,6}", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    /// A header with some of the members that mean something, each with anything at all in it.
    fn any_header() -> impl Strategy<Value = Value> {
        let name = prop_oneof![
            Just("alg"),
            Just("kid"),
            Just("typ"),
            Just("cty"),
            Just("jku"),
            Just("jwk"),
            Just("x5u"),
            Just("x5c"),
            Just("crit"),
            Just("enc"),
            Just("zip"),
            Just("b64"),
        ];
        prop::collection::btree_map(name, any_json(), 0..6).prop_map(|header| json!(header))
    }

    proptest! {
        #[test]
        fn any_text_is_refused(text in "\\PC{0,40}(\\.\\PC{0,40}){0,3}") {
            prop_assert!(refused(&text));
        }

        #[test]
        fn any_bytes_as_a_header_are_refused(
            header: Vec<u8>,
            signature in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let claims = claims().to_string();
            let token =
                format!("{}.{}.{}", part(&header), part(claims.as_bytes()), part(&signature));
            prop_assert!(refused(&token));
        }

        #[test]
        fn a_header_is_believed_only_with_our_algorithm_and_a_key_of_ours(header in any_header()) {
            let is_ours = header["alg"] == "EdDSA" && header["kid"] == "new";
            let is_read = tokens().read(&signed_raw(&header, &claims())).is_ok();
            prop_assert!(!is_read || is_ours, "{header}");
        }

        #[test]
        fn one_changed_character_anywhere_makes_a_token_worthless(
            position: prop::sample::Index,
            letter in "[A-Za-z0-9_.-]",
        ) {
            let token = signed(&header("new"), &claims());
            let at = position.index(token.len());
            let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
            prop_assume!(changed != token);
            prop_assert!(tokens().read(&changed).is_err());
        }
    }
}
