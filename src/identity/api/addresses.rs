//! The addresses that a user keeps.

use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Customer, Tag, no_store};
use crate::{
    context::Context,
    identity::{
        IdentityError,
        accounts::{self, Address, NewAddress},
    },
    web::{AddressBody, Problem},
};

#[derive(Debug)]
pub struct AddressesApi {
    cx: Context,
}

impl AddressesApi {
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }
}

#[OpenApi(prefix_path = "/v1/auth/me/addresses", tag = "Tag::Auth")]
impl AddressesApi {
    /// List my addresses
    ///
    /// All of them, the oldest first: at most 50.
    #[oai(path = "/", method = "get", operation_id = "listAddresses")]
    async fn list(&self, customer: Customer) -> Result<AddressesResponse, Problem> {
        let kept = accounts::list_addresses(&self.cx.db, customer.user_id()).await?;
        let addresses =
            kept.into_iter().map(KeptAddressBody::try_from).collect::<Result<_, _>>()?;
        Ok(AddressesResponse::Ok(Json(AddressesBody { addresses }), no_store()))
    }

    /// Keep an address
    ///
    /// The first one is the default, whatever is asked for. Repeating the request keeps another one.
    #[oai(path = "/", method = "post", operation_id = "addAddress")]
    async fn add(
        &self,
        customer: Customer,
        body: Json<NewAddressBody>,
    ) -> Result<AddAddressResponse, Problem> {
        let new = body.0.parse().map_err(IdentityError::Invalid)?;
        let kept = accounts::add_address(&self.cx.db, customer.user_id(), &new).await?;
        let location = format!("/v1/auth/me/addresses/{}", kept.id);
        Ok(AddAddressResponse::Kept(Json(kept.try_into()?), location, no_store()))
    }

    /// Get one of my addresses
    ///
    /// As it is kept, with whether it is the default.
    #[oai(path = "/:id", method = "get", operation_id = "getAddress")]
    async fn get(&self, customer: Customer, id: Path<Uuid>) -> Result<AddressResponse, Problem> {
        let kept = accounts::find_address(&self.cx.db, customer.user_id(), id.0).await?;
        Ok(AddressResponse::Ok(Json(kept.try_into()?), no_store()))
    }

    /// Write another address in the place of one of mine
    ///
    /// Orders that were sent to the one before keep it.
    #[oai(path = "/:id", method = "put", operation_id = "changeAddress")]
    async fn change(
        &self,
        customer: Customer,
        id: Path<Uuid>,
        body: Json<NewAddressBody>,
    ) -> Result<AddressResponse, Problem> {
        let new = body.0.parse().map_err(IdentityError::Invalid)?;
        let user_id = customer.user_id();
        let kept = accounts::change_address(&self.cx.db, user_id, id.0, &new).await?;
        Ok(AddressResponse::Ok(Json(kept.try_into()?), no_store()))
    }

    /// Forget one of my addresses
    ///
    /// Orders that were sent there keep it. After the default is gone there is none.
    #[oai(path = "/:id", method = "delete", operation_id = "removeAddress")]
    async fn remove(
        &self,
        customer: Customer,
        id: Path<Uuid>,
    ) -> Result<RemoveAddressResponse, Problem> {
        accounts::remove_address(&self.cx.db, customer.user_id(), id.0).await?;
        Ok(RemoveAddressResponse::Gone)
    }
}

#[derive(Object)]
#[oai(rename = "NewAddress", deny_unknown_fields)]
struct NewAddressBody {
    address: AddressBody,
    /// Whether it is the one to be offered first; then no other is.
    #[oai(default)]
    is_default: bool,
}

impl NewAddressBody {
    fn parse(&self) -> Result<NewAddress, Vec<crate::kernel::Detail>> {
        let problems = self.address.problems_at("/address");
        if !problems.is_empty() {
            return Err(problems);
        }
        let address = serde_json::to_value(&self.address).expect("plain data has a JSON form");
        Ok(NewAddress { address, is_default: self.is_default })
    }
}

/// An address that a user keeps.
#[derive(Object)]
#[oai(rename = "KeptAddress")]
pub struct KeptAddressBody {
    id: Uuid,
    address: AddressBody,
    is_default: bool,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Address> for KeptAddressBody {
    type Error = IdentityError;

    fn try_from(kept: Address) -> Result<Self, IdentityError> {
        Ok(Self {
            id: kept.id,
            address: serde_json::from_value(kept.address)
                .map_err(|_| IdentityError::Unreadable("address"))?,
            is_default: kept.is_default,
            created_at: kept.created_at,
            updated_at: kept.updated_at,
        })
    }
}

#[derive(Object)]
#[oai(rename = "Addresses")]
struct AddressesBody {
    addresses: Vec<KeptAddressBody>,
}

#[derive(ApiResponse)]
enum AddressesResponse {
    /// All addresses of the account.
    #[oai(status = 200)]
    Ok(Json<AddressesBody>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum AddressResponse {
    /// The address as it is kept.
    #[oai(status = 200)]
    Ok(Json<KeptAddressBody>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum AddAddressResponse {
    /// The address is kept.
    #[oai(status = 201)]
    Kept(
        Json<KeptAddressBody>,
        /// Where to read it.
        #[oai(header = "Location")]
        String,
        #[oai(header = "Cache-Control")] String,
    ),
}

#[derive(ApiResponse)]
enum RemoveAddressResponse {
    /// The address is forgotten.
    #[oai(status = 204)]
    Gone,
}
