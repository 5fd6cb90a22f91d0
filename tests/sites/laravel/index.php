<?php
// A small Laravel site: no skeleton, but the framework's own session, encrypted cookies, CSRF check,
// session guard and remember-me, and the sign-in that its documentation writes. `php index.php`
// makes the users; as the script of PHP's server it serves.
require_once 'Illuminate/autoload.php';

use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Http\Kernel as KernelContract;
use Illuminate\Foundation\Application;
use Illuminate\Foundation\Exceptions\Handler;
use Illuminate\Foundation\Http\Kernel;
use Illuminate\Foundation\Http\Middleware\VerifyCsrfToken;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Hash;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\Facades\Schema;
use Illuminate\Validation\ValidationException;

class User extends Illuminate\Foundation\Auth\User
{
    protected $guarded = [];
}

/** As in the skeleton. */
class RedirectIfAuthenticated
{
    public function handle(Request $request, Closure $next)
    {
        return Auth::check() ? redirect('/') : $next($request);
    }
}

class SiteKernel extends Kernel
{
    protected $middleware = [
        Illuminate\Foundation\Http\Middleware\ValidatePostSize::class,
        Illuminate\Foundation\Http\Middleware\TrimStrings::class,
        Illuminate\Foundation\Http\Middleware\ConvertEmptyStringsToNull::class,
    ];

    protected $middlewareGroups = [
        'web' => [
            Illuminate\Cookie\Middleware\EncryptCookies::class,
            Illuminate\Cookie\Middleware\AddQueuedCookiesToResponse::class,
            Illuminate\Session\Middleware\StartSession::class,
            Illuminate\View\Middleware\ShareErrorsFromSession::class,
            VerifyCsrfToken::class,
        ],
    ];

    protected $routeMiddleware = [
        'auth' => Illuminate\Auth\Middleware\Authenticate::class,
        'guest' => RedirectIfAuthenticated::class,
    ];
}

/** Back to the form, or 422 for scripts. */
function wrong(string $field)
{
    throw ValidationException::withMessages([$field => 'These credentials do not match.']);
}

function routes(): void
{
    $done = fn (Request $request, array $answer) =>
        $request->wantsJson() ? response()->json($answer) : redirect()->intended('/');
    $user = fn () => response()->json(['user' => Auth::user()->email ?? null]);

    Route::get('/', fn () => 'hello ' . (Auth::user()->email ?? 'anonymous'));
    Route::get('/whoami', $user);
    Route::get('/touch', function () use ($user) {
        session(['touched' => bin2hex(random_bytes(4))]);
        return $user();
    });
    // What every form has in `@csrf`.
    Route::get('/csrf', fn () => response()->json(['token' => csrf_token()]));
    Route::get('/account', fn () =>
        '<form method="post" action="/logout">' . csrf_field() . '</form>')->middleware('auth');

    Route::middleware('guest')->group(function () use ($done) {
        Route::get('/login', fn () => '<form method="post">' . csrf_field() .
            '<input name="email"><input name="password"></form>')->name('login');
        Route::post('/login', function (Request $request) use ($done) {
            $credentials = $request->validate(['email' => 'required', 'password' => 'required']);
            if (!Auth::attempt($credentials, $request->boolean('remember'))) {
                wrong('email');
            }
            $request->session()->regenerate();
            return $done($request, ['two_factor' => false]);
        });
        Route::post('/register', function (Request $request) use ($done) {
            $new = $request->validate(['email' => 'required', 'password' => 'required']);
            if (User::where('email', $new['email'])->exists()) {
                wrong('email');
            }
            Auth::login(User::create(['password' => Hash::make($new['password'])] + $new));
            $request->session()->regenerate();
            return $done($request, []);
        });
    });

    Route::put('/user/password', function (Request $request) use ($done) {
        if (!Hash::check($request->input('current_password'), Auth::user()->password)) {
            wrong('current_password');
        }
        Auth::user()->update(['password' => Hash::make($request->input('password'))]);
        return $done($request, []);
    })->middleware('auth');

    Route::post('/logout', function (Request $request) {
        Auth::logout();
        $request->session()->invalidate();
        $request->session()->regenerateToken();
        return redirect('/');
    });
}

function make_users(): void
{
    @mkdir(config('session.files'));
    touch(config('database.connections.sqlite.database'));
    Schema::create('users', function ($table) {
        $table->id();
        $table->string('email')->unique();
        $table->string('password');
        $table->rememberToken();
        $table->timestamps();
    });
    $users = array_map(function ($number) {
        $email = "user$number@example.com";
        return ['email' => $email, 'password' => Hash::make("secret-$email")];
    }, range(0, 299));
    DB::table('users')->insert($users);
    DB::statement('PRAGMA journal_mode = WAL');
}

putenv('APP_CONFIG_CACHE=' . __DIR__ . '/config.php');
putenv('APP_PACKAGES_CACHE=' . getenv('SITE_DIR') . '/packages.php');
putenv('APP_SERVICES_CACHE=' . getenv('SITE_DIR') . '/services.php');

$app = new Application(__DIR__);
$app->singleton(KernelContract::class, SiteKernel::class);
$app->singleton(ExceptionHandler::class, Handler::class);
$app->booted(function () {
    Route::middleware('web')->group(fn () => routes());
    Route::getRoutes()->refreshNameLookups();
});
$kernel = $app->make(KernelContract::class);
if (PHP_SAPI === 'cli') {
    $kernel->bootstrap();
    make_users();
    exit;
}
$response = $kernel->handle($request = Request::capture());
$response->send();
$kernel->terminate($request, $response);
