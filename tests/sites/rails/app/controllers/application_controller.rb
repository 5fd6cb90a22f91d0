# The few pages that all sites of the tests have.
class ApplicationController < ActionController::Base
  def index
    render plain: "hello #{current_user ? current_user.email : 'anonymous'}"
  end

  def whoami
    render json: { user: current_user&.email }
  end

  def touch
    session[:touched] = SecureRandom.hex(4)
    whoami
  end

  before_action :authenticate_user!, only: :account

  # A page for users only, with the button that pages have.
  def account
    render inline: "<%= button_to 'Log out', destroy_user_session_path, method: :delete %>"
  end

  # What `csrf_meta_tags` puts into every page.
  def csrf
    render json: { token: form_authenticity_token }
  end

  # The link of the mail that lets set a new password.
  def reset
    render json: { token: User.find_by!(email: params[:email]).send_reset_password_instructions }
  end
end
