-- The groups that a user was in at the login, a line each; NULL: none.

ALTER TABLE sessions ADD COLUMN user_groups TEXT;
