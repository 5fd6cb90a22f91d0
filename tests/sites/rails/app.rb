# A small Rails site with Devise, set up as the generators of both do: sessions in the encrypted
# cookie, sign-up, remember-me, password reset. It makes its users in a database of its own.
require 'action_controller/railtie'
require 'action_mailer/railtie'
require 'active_record/railtie'
require 'devise'
require 'tmpdir'

DATABASE = File.join(Dir.mktmpdir, 'site.sqlite3')
Thread.new do
  # It ends with the tests.
  $stdin.read
  FileUtils.rm_rf(File.dirname(DATABASE))
  exit!(0)
end

class Site < Rails::Application
  config.root = __dir__
  config.load_defaults 6.1
  config.eager_load = false
  config.secret_key_base = 'only for tests' * 8
  config.session_store :cookie_store, key: '_site_session'
  config.logger = Logger.new($stderr, level: :fatal)
  config.action_mailer.delivery_method = :test
  config.action_mailer.default_url_options = { host: 'localhost' }
  config.to_prepare { DeviseController.respond_to :html, :json }
end

ENV['DATABASE_URL'] = "sqlite3:#{DATABASE}?pool=20&timeout=20000"
ActiveRecord::Base.establish_connection
require 'devise/orm/active_record'

Devise.setup do |config|
  config.mailer_sender = 'site@example.com'
  config.case_insensitive_keys = [:email]
  config.strip_whitespace_keys = [:email]
  config.skip_session_storage = [:http_auth]
  config.stretches = 1
  config.expire_all_remember_me_on_sign_out = true
  config.sign_out_via = :delete
end

Site.initialize!

ActiveRecord::Schema.verbose = false
ActiveRecord::Schema.define do
  create_table :users do |t|
    t.string :email, null: false, index: { unique: true }
    t.string :encrypted_password, null: false
    t.string :reset_password_token, index: { unique: true }
    t.datetime :reset_password_sent_at
    t.datetime :remember_created_at
    t.timestamps
  end
end

now = Time.now
User.insert_all!((0...300).map do |number|
  email = "user#{number}@example.com"
  secret = User.new(password: "secret-#{email}").encrypted_password
  { email: email, encrypted_password: secret, created_at: now, updated_at: now }
end)
ActiveRecord::Base.connection.execute('PRAGMA journal_mode = WAL')
