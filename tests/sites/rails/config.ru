require_relative 'app'
run Site
