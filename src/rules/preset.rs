//! The built-in presets: a name, one sentence, and the TOML file it stands for. A preset is
//! nothing but configuration in the rule language; there is no logic here.

/// One built-in preset.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    pub name: &'static str,
    /// One sentence for `headcount presets`.
    pub about: &'static str,
    pub toml: &'static str,
}

/// Every preset, in the order they are listed.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "django",
        about: "Django 3.2 to 5.x: contrib.auth and the admin, every session engine",
        toml: include_str!("../../config/presets/django.toml"),
    },
    Preset {
        name: "django-allauth",
        about: "Django with django-allauth 65: local accounts, e-mail or user name",
        toml: include_str!("../../config/presets/django-allauth.toml"),
    },
    Preset {
        name: "flask-login",
        about: "Flask 3 with Flask-Login 0.6: the session in a signed cookie, remember-me",
        toml: include_str!("../../config/presets/flask-login.toml"),
    },
    Preset {
        name: "rails-devise",
        about: "Rails with Devise: the session in an encrypted cookie, remember-me, sign-up",
        toml: include_str!("../../config/presets/rails-devise.toml"),
    },
    Preset {
        name: "laravel",
        about: "Laravel 8 to 12 with its session guard: Fortify, Breeze, Jetstream or by hand",
        toml: include_str!("../../config/presets/laravel.toml"),
    },
    Preset {
        name: "express-passport",
        about: "Express with express-session and passport-local 0.6 or newer",
        toml: include_str!("../../config/presets/express-passport.toml"),
    },
    Preset {
        name: "cookie-session",
        about: "Express with cookie-session: the session in a signed cookie",
        toml: include_str!("../../config/presets/cookie-session.toml"),
    },
    Preset {
        name: "php",
        about: "plain PHP sessions, with and without a new id at login",
        toml: include_str!("../../config/presets/php.toml"),
    },
    Preset {
        name: "wordpress",
        about: "WordPress 5 and 6: its own login page, by user name or e-mail",
        toml: include_str!("../../config/presets/wordpress.toml"),
    },
    Preset {
        name: "tomcat-form",
        about: "Tomcat 9 to 11 with FORM authentication, `j_security_check`",
        toml: include_str!("../../config/presets/tomcat-form.toml"),
    },
    Preset {
        name: "flask-appbuilder",
        about: "Flask-AppBuilder 4 (Superset, Airflow): the session in a signed cookie",
        toml: include_str!("../../config/presets/flask-appbuilder.toml"),
    },
    Preset {
        name: "symfony",
        about: "Symfony 5.4 to 7: form_login, json_login and remember-me",
        toml: include_str!("../../config/presets/symfony.toml"),
    },
    Preset {
        name: "drupal",
        about: "Drupal 8 to 11: the login form and block, JSON",
        toml: include_str!("../../config/presets/drupal.toml"),
    },
    Preset {
        name: "spring-security",
        about: "Spring Security 5 to 7: formLogin and remember-me on servlets",
        toml: include_str!("../../config/presets/spring-security.toml"),
    },
    Preset {
        name: "aspnet-core-identity",
        about: "ASP.NET Core Identity: its pages, a second factor, the cookie login of its API",
        toml: include_str!("../../config/presets/aspnet-core-identity.toml"),
    },
    Preset {
        name: "aspnet-forms",
        about: "classic ASP.NET: forms authentication, ASP.NET Identity 2 on OWIN",
        toml: include_str!("../../config/presets/aspnet-forms.toml"),
    },
    Preset {
        name: "nextauth",
        about: "NextAuth 4 and Auth.js 5: the credentials provider",
        toml: include_str!("../../config/presets/nextauth.toml"),
    },
    Preset {
        name: "drf-simplejwt",
        about: "Django REST framework with SimpleJWT: bearer tokens in JSON",
        toml: include_str!("../../config/presets/drf-simplejwt.toml"),
    },
    Preset {
        name: "jwt-spa",
        about: "single-page and mobile apps that get bearer tokens in JSON",
        toml: include_str!("../../config/presets/jwt-spa.toml"),
    },
    Preset {
        name: "basic-auth",
        about: "HTTP Basic, with a page that the proxy may ask",
        toml: include_str!("../../config/presets/basic-auth.toml"),
    },
];

/// The preset of this name.
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
