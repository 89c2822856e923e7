//! Every operation of the API: who may call it, and what kind of load it is.
//!
//! The API does not start unless this table and the operations it serves are the same set, and each
//! operation's description names the callers that are declared here. What is not in it, is not served.

use crate::web::policy::{
    Care::{Exports, Guesses, Holds, Mails, Newcomers},
    Class::{Admin as Operating, Auth, Browse, Cart, Checkout, Payment, Webhook},
    Policy,
    Who::{Anyone, Customer, Provider, RefreshToken, Shopper, Staff},
};

pub const POLICIES: &[Policy] = &[
    // Accounts, logins and guests.
    Policy::new("register", Anyone, Auth).with(&[Mails]),
    Policy::new("logIn", Anyone, Auth).with(&[Guesses]),
    Policy::new("refreshSession", RefreshToken, Auth),
    Policy::new("logOut", RefreshToken, Auth),
    Policy::new("logOutEverywhere", Customer, Auth),
    Policy::new("listSessions", Customer, Browse),
    Policy::new("endSession", Customer, Auth),
    Policy::new("becomeGuest", Anyone, Auth).with(&[Newcomers]),
    Policy::new("verifyEmail", Anyone, Auth).with(&[Guesses]),
    Policy::new("forgotPassword", Anyone, Auth).with(&[Mails]),
    Policy::new("resetPassword", Anyone, Auth).with(&[Guesses]),
    Policy::new("changePassword", Customer, Auth).with(&[Guesses]),
    Policy::new("changeEmail", Customer, Auth).with(&[Guesses, Mails]),
    Policy::new("confirmEmail", Customer, Auth).with(&[Guesses]),
    Policy::new("getMe", Customer, Browse),
    Policy::new("changeMe", Customer, Cart),
    Policy::new("exportMe", Customer, Auth).with(&[Exports]),
    Policy::new("eraseMe", Customer, Auth).with(&[Guesses]),
    Policy::new("listAddresses", Customer, Browse),
    Policy::new("addAddress", Customer, Cart),
    Policy::new("getAddress", Customer, Browse),
    Policy::new("changeAddress", Customer, Cart),
    Policy::new("removeAddress", Customer, Cart),
    // The catalogue and its stock.
    Policy::new("listProducts", Anyone, Browse),
    Policy::new("getProduct", Anyone, Browse),
    Policy::new("createProduct", Staff, Operating),
    Policy::new("setSale", Staff, Operating),
    Policy::new("getStock", Anyone, Browse),
    Policy::new("receiveStock", Staff, Operating),
    // Orders.
    Policy::new("placeOrder", Shopper, Checkout).with(&[Holds]),
    Policy::new("listOrders", Shopper, Browse),
    Policy::new("getOrder", Shopper, Browse),
    // A provider may be asked to withdraw the attempt.
    Policy::new("cancelOrder", Shopper, Payment),
    // Payments and what becomes of them.
    Policy::new("openPayment", Shopper, Payment),
    Policy::new("confirmPayment", Shopper, Payment),
    Policy::new("getPayment", Shopper, Browse),
    Policy::new("listMyRefunds", Shopper, Browse),
    Policy::new("listOrderDisputes", Staff, Operating),
    Policy::new("listOrderRefunds", Staff, Operating),
    Policy::new("refundOrder", Staff, Operating),
    Policy::new("shipOrder", Staff, Operating),
    Policy::new("listQuarantined", Staff, Operating),
    Policy::new("resolveQuarantined", Staff, Operating),
    Policy::new("listFindings", Staff, Operating),
    Policy::new("closeFinding", Staff, Operating),
    // The payment providers.
    Policy::new("takeStripeEvent", Provider, Webhook),
    Policy::new("takeRazorpayEvent", Provider, Webhook),
];
