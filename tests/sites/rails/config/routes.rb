Rails.application.routes.draw do
  devise_for :users
  root to: 'application#index'
  get 'whoami', to: 'application#whoami'
  get 'touch', to: 'application#touch'
  get 'account', to: 'application#account'
  get 'csrf', to: 'application#csrf'
  get 'reset', to: 'application#reset'
end
