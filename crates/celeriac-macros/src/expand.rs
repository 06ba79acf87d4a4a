//! Writes what stands beside the function.

use crate::function::{Origin, Parameter, Returned, parameters, returned};
use crate::options::Options;
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Block, Error, Ident, Result, Signature, Token, Visibility};

/// A function with or without a body.
struct Function {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
    body: Option<Block>,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature = input.parse()?;
        let body = if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            None
        } else {
            Some(input.parse()?)
        };
        Ok(Self { attributes, visibility, signature, body })
    }
}

/// Expands `#[task(attribute)] item`.
pub(crate) fn task(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options: Options = syn::parse2(attribute)?;
    let mut function: Function = syn::parse2(item)?;
    let parameters = parameters(&mut function.signature)?;
    let returned = returned(&function.signature)?;
    let Function { attributes, visibility, signature, body } = &function;
    let name = &signature.ident;
    match (body, options.remote) {
        (Some(_), true) => {
            return Err(Error::new_spanned(name, "a remote task has no body: end it with `;`"));
        }
        (None, false) => {
            return Err(Error::new_spanned(
                name,
                "a task without a body needs the option `remote`",
            ));
        }
        (None, true) => check_remote(name, &options, &parameters)?,
        (Some(_), false) => check_parameters(&options, &parameters)?,
    }
    let wire_name = wire_name(name, &options);
    // Written under the function, these would leave it out and keep what stands beside it.
    let conditions: Vec<&Attribute> =
        attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
    let beside = if let Some(body) = body {
        let implementation = implementation(name, &wire_name, &parameters, &returned, &options);
        quote! {
            #(#attributes)*
            #[allow(clippy::unused_async)]
            #visibility #signature #body
            #(#conditions)*
            #implementation
        }
    } else {
        quote! {
            #(#conditions)*
            impl #name {
                /// The name on the wire.
                #[allow(dead_code)]
                #visibility const NAME: &'static str = #wire_name;
            }
        }
    };
    let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let calls = calls(visibility, &parameters, &returned, options.remote);
    Ok(quote! {
        #beside
        #(#conditions)*
        #(#docs)*
        #[allow(non_camel_case_types)]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #name {}
        #(#conditions)*
        impl #name { #calls }
    })
}

/// What a declaration of a task elsewhere may not say.
fn check_remote(name: &Ident, options: &Options, parameters: &[Parameter]) -> Result<()> {
    if !options.calls.is_empty() {
        let text = "a remote task takes `name` only; its options are its own program's";
        return Err(Error::new_spanned(name, text));
    }
    if options.name.is_none() {
        let text = "a remote task needs the name under which its own program knows it: \
                    `#[task(name = \"app.tasks.add\", remote)]`";
        return Err(Error::new_spanned(name, text));
    }
    for one in parameters {
        let text = match one.origin {
            Origin::Injected => {
                "only the program that runs a task injects: leave this parameter out"
            }
            Origin::Default(_) => "the default is the other program's: take `Option<T>` instead",
            Origin::Required | Origin::Optional => continue,
        };
        return Err(Error::new_spanned(&one.kind, text));
    }
    Ok(())
}

/// Options name parameters that exist and come with the message.
fn check_parameters(options: &Options, parameters: &[Parameter]) -> Result<()> {
    for (name, place) in &options.parameters {
        let names: Vec<String> = parameters
            .iter()
            .filter(|one| one.is_argument())
            .map(|one| one.name.unraw().to_string())
            .collect();
        if !names.contains(name) {
            let text = format!("no parameter `{name}`; the parameters are {}", names.join(", "));
            return Err(Error::new_spanned(place, text));
        }
    }
    Ok(())
}

/// The name on the wire: the given one, or the function's path.
fn wire_name(name: &Ident, options: &Options) -> TokenStream {
    if let Some(name) = &options.name {
        quote!(#name)
    } else {
        let short = name.unraw().to_string();
        quote!(::core::concat!(::core::module_path!(), ".", #short))
    }
}

/// `impl Task`.
fn implementation(
    name: &Ident,
    wire_name: &TokenStream,
    parameters: &[Parameter],
    returned: &Returned,
    options: &Options,
) -> TokenStream {
    let params = parameters.iter().filter(|one| one.is_argument()).map(|one| {
        let text = one.name.unraw().to_string();
        if matches!(one.origin, Origin::Required) {
            quote!(::celeriac::Param::required(#text))
        } else {
            quote!(::celeriac::Param::optional(#text))
        }
    });
    let injected = parameters.iter().filter(|one| !one.is_argument()).map(|one| &one.kind);
    // A parameter may be called `context`, `arguments` or like the function itself: the names here
    // are ones that the user's code cannot see.
    let own = |text: &str| Ident::new(text, Span::mixed_site());
    let (context, arguments) = (own("context"), own("arguments"));
    let locals: Vec<Ident> = (0..parameters.len()).map(|at| own(&format!("value_{at}"))).collect();
    let mut index = 0usize;
    let taken = parameters.iter().zip(&locals).map(|(one, local)| {
        let kind = &one.kind;
        let at = index;
        index += usize::from(one.is_argument());
        match &one.origin {
            Origin::Injected => quote! {
                let #local = <#kind as ::celeriac::FromContext>::from_context(&#context)?;
            },
            Origin::Required => quote!(let #local: #kind = #arguments.required(#at)?;),
            Origin::Optional => quote!(let #local: #kind = #arguments.optional(#at)?;),
            Origin::Default(value) => {
                quote!(let #local: #kind = #arguments.or_else(#at, || #value)?;)
            }
        }
    });
    let run = if returned.fallible {
        quote!(::core::result::Result::Ok(#name(#(#locals),*).await?))
    } else {
        quote!(::core::result::Result::Ok(#name(#(#locals),*).await))
    };
    let (output, option_calls) = (&returned.kind, &options.calls);
    quote! {
        impl ::celeriac::Task for #name {
            const NAME: &'static str = #wire_name;
            const PARAMS: &'static [::celeriac::Param] = &[#(#params),*];
            type Output = #output;

            fn options(options: ::celeriac::TaskOptions) -> ::celeriac::TaskOptions {
                options #(#option_calls)*
            }

            #[allow(unused_variables)]
            fn require(requirements: &mut ::celeriac::Requirements) {
                #(<#injected as ::celeriac::FromContext>::require(requirements);)*
            }

            #[allow(
                unused_variables, unused_mut, clippy::let_unit_value,
                clippy::needless_question_mark, clippy::unit_arg
            )]
            async fn run(
                #context: ::celeriac::Context,
                mut #arguments: ::celeriac::Arguments,
            ) -> ::core::result::Result<Self::Output, ::celeriac::TaskError> {
                #(#taken)*
                #run
            }
        }
    }
}

/// The functions `call` and `partial`, visible where the task is.
fn calls(
    visibility: &Visibility,
    parameters: &[Parameter],
    returned: &Returned,
    remote: bool,
) -> TokenStream {
    let arguments: Vec<&Parameter> = parameters.iter().filter(|one| one.is_argument()).collect();
    let output = &returned.kind;
    let start = if remote {
        quote!(::celeriac::Call::<#output>::remote(Self::NAME))
    } else {
        quote!(::celeriac::Call::<#output>::new::<Self>())
    };
    let build = |arguments: &[&Parameter]| {
        let takes = arguments.iter().map(|one| {
            let (name, kind) = (&one.name, &one.kind);
            if one.is_string() {
                quote!(#name: impl ::core::convert::Into<::std::string::String>)
            } else {
                quote!(#name: #kind)
            }
        });
        let adds = arguments.iter().map(|one| {
            let name = &one.name;
            if one.is_string() {
                let into = quote!(::core::convert::Into::<::std::string::String>::into(#name));
                quote!(.arg(&#into))
            } else {
                quote!(.arg(&#name))
            }
        });
        (quote!(#(#takes),*), quote!(#start #(#adds)*))
    };
    let (all, call) = build(&arguments);
    let quiet = quote! {
        #[allow(
            dead_code, clippy::too_many_arguments, clippy::needless_pass_by_value,
            clippy::impl_trait_in_params
        )]
    };
    let partial = arguments.get(1..).map(|rest| {
        let (rest, partial) = build(rest);
        let following = if remote { quote!() } else { quote!(.after_another()) };
        quote! {
            /// Makes a call whose first argument is the result of the task before it.
            #quiet
            #visibility fn partial(#rest) -> ::celeriac::Call<#output> { #partial #following }
        }
    });
    quote! {
        /// Makes a call, to be sent by a client.
        #quiet
        #visibility fn call(#all) -> ::celeriac::Call<#output> { #call }
        #partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(attribute: &str, item: &str) -> std::result::Result<String, String> {
        let parse = |text: &str| text.parse::<TokenStream>().unwrap();
        task(parse(attribute), parse(item))
            .map(|tokens| tokens.to_string().replace(' ', ""))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_function_stays_and_a_struct_stands_beside_it() {
        let code = expand(
            r#"name = "tasks.add", queue = "math""#,
            "pub async fn add(db: State<Db>, x: i64, #[default(2)] y: i64, note: Option<String>) -> Result<i64> { Ok(x) }",
        )
        .unwrap();
        for expected in [
            "pubasyncfnadd(db:State<Db>,x:i64,y:i64,note:Option<String>)->Result<i64>",
            "pubstructadd{}",
            r#"constNAME:&'staticstr="tasks.add""#,
            r#"Param::required("x"),::celeriac::Param::optional("y"),::celeriac::Param::optional("note")"#,
            "pubfncall(x:i64,y:i64,note:Option<String>)->::celeriac::Call<i64>",
            "pubfnpartial(y:i64,note:Option<String>)->::celeriac::Call<i64>",
            "arguments.or_else(1usize,||2)?",
            "Ok(add(value_0,value_1,value_2,value_3).await?)",
        ] {
            assert!(code.contains(expected), "{expected} is not in {code}");
        }
    }

    #[test]
    fn a_remote_task_makes_calls_only() {
        let code =
            expand(r#"name = "mail.send", remote"#, "async fn send(to: String) -> u64;").unwrap();
        assert!(
            code.contains("Call::<u64>::remote(Self::NAME)") && !code.contains("::celeriac::Task")
        );
    }

    #[test]
    fn conditions_and_raw_names_are_kept() {
        let code = expand("", "#[cfg(unix)] pub(crate) async fn r#loop(r#type: u8) {}").unwrap();
        assert_eq!(code.matches("#[cfg(unix)]").count(), 4, "{code}");
        assert!(
            code.contains(r#"Param::required("type")"#) && code.contains(r#"".","loop""#),
            "{code}"
        );
        assert!(code.contains("pub(crate)fncall(r#type:u8)"), "{code}");
    }

    #[test]
    fn what_cannot_be_a_task_says_why() {
        for (attribute, item, expected) in [
            ("", "fn add() {}", "async fn"),
            ("", "async fn add<T>(x: T) {}", "cannot be generic"),
            ("", "async fn add(&self) {}", "without `self`"),
            ("", "async fn add((a, b): (i64, i64)) {}", "plain names"),
            ("", "async fn add(x: &str) {}", "String instead of &str"),
            ("", "async fn add(x: i64);", "needs the option `remote`"),
            ("remote", "async fn add(x: i64) {}", "has no body"),
            (r#"remote, queue = "q""#, "async fn add(x: i64);", "takes `name` only"),
            ("remote", "async fn add(x: i64);", "needs the name"),
            (r#"remote, name = "a""#, "async fn add(cx: Context);", "leave this parameter out"),
            (r#"remote, name = "a""#, "async fn add(#[default(1)] x: i64);", "take `Option<T>`"),
            ("", "async fn add(x: impl Into<String>) {}", "impl Trait"),
            ("", "async fn add() -> impl Copy {}", "impl Trait"),
            ("", "async fn add(x: Vec<&str>) {}", "String instead of &str"),
            ("", "async fn add() -> &'static str {}", "String instead of &str"),
            ("", "async fn add() where u8: Copy {}", "cannot be generic"),
            ("", "async unsafe fn add() {}", "safe"),
            ("", "async fn add(#[inject] #[default(1)] x: i64) {}", "not both"),
            ("", "async fn add(#[default] x: i64) {}", "#[default(0)]"),
            ("", "async fn add(#[cfg(unix)] x: i64) {}", "#[cfg]"),
            ("", "async fn add(ref x: i64) {}", "plain names"),
        ] {
            let error = expand(attribute, item).unwrap_err();
            assert!(error.contains(expected), "{item}: {error}");
        }
    }
}
